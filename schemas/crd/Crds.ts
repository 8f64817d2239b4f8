/**
 * The driver's two CustomResourceDefinitions, as objects. `scripts/crds.mjs` writes them to assets/crds.
 *
 * @source reference/driver.md 5.1, 5.2, 5.3
 */
import type { Schema } from "effect"
import {
  SecretProviderClassSpec,
  SecretProviderClassStatus,
  SecretProviderClassStatusV1Alpha1
} from "../SecretProviderClass.ts"
import { PodStatusStatus } from "../SecretProviderClassPodStatus.ts"
import { type CrdSchema, toCrdSchema } from "./toCrdSchema.ts"

const GROUP = "secrets-store.csi.x-k8s.io"

interface Version {
  readonly name: string
  readonly served: true
  readonly storage: boolean
  readonly deprecated?: true
  readonly deprecationWarning?: string
  readonly schema: { readonly openAPIV3Schema: CrdSchema }
}

export interface CustomResourceDefinition {
  readonly apiVersion: "apiextensions.k8s.io/v1"
  readonly kind: "CustomResourceDefinition"
  readonly metadata: { readonly name: string; readonly annotations: Readonly<Record<string, string>> }
  readonly spec: {
    readonly group: string
    readonly names: {
      readonly kind: string
      readonly listKind: string
      readonly plural: string
      readonly singular: string
    }
    readonly scope: "Namespaced"
    readonly versions: ReadonlyArray<Version>
  }
}

const text = (description: string): CrdSchema => ({ type: "string", description })

/** A Kubernetes object with these fields of its own. */
const versionSchema = (
  description: string,
  fields: Readonly<Record<string, Schema.Constraint>>
): Version["schema"] => ({
  openAPIV3Schema: {
    type: "object",
    description,
    properties: {
      apiVersion: text("group and version of this object"),
      kind: text("kind of this object"),
      metadata: { type: "object" },
      ...Object.fromEntries(Object.entries(fields).map(([name, schema]) => [name, toCrdSchema(schema)]))
    }
  }
})

const definition = (kind: string, plural: string, versions: ReadonlyArray<Version>): CustomResourceDefinition => ({
  apiVersion: "apiextensions.k8s.io/v1",
  kind: "CustomResourceDefinition",
  metadata: {
    name: `${plural}.${GROUP}`,
    // Other programs look at the version of upstream's generator.
    annotations: { "controller-gen.kubebuilder.io/version": "v0.16.3" }
  },
  spec: {
    group: GROUP,
    names: { kind, listKind: `${kind}List`, plural, singular: kind.toLowerCase() },
    scope: "Namespaced",
    versions
  }
})

const spec = SecretProviderClassSpec.annotate({
  description: "which provider to ask for what, and which Kubernetes Secrets to make of it"
})
const CLASS = "SecretProviderClass says what a pod's secrets volume holds"

export const secretProviderClassCrd = definition("SecretProviderClass", "secretproviderclasses", [
  {
    name: "v1",
    served: true,
    storage: true,
    schema: versionSchema(CLASS, { spec, status: SecretProviderClassStatus })
  },
  {
    name: "v1alpha1",
    served: true,
    storage: false,
    deprecated: true,
    deprecationWarning: `${GROUP}/v1alpha1 is deprecated. Use ${GROUP}/v1 instead.`,
    schema: versionSchema(CLASS, {
      spec,
      status: SecretProviderClassStatusV1Alpha1.annotate({ description: "unused" })
    })
  }
])

const podStatusSchema = versionSchema("SecretProviderClassPodStatus says what one volume of one pod holds", {
  status: PodStatusStatus.annotate({ description: "what the driver mounted" })
})

export const secretProviderClassPodStatusCrd = definition(
  "SecretProviderClassPodStatus",
  "secretproviderclasspodstatuses",
  [
    { name: "v1", served: true, storage: true, schema: podStatusSchema },
    { name: "v1alpha1", served: true, storage: false, deprecated: true, schema: podStatusSchema }
  ]
)

/** By the name of the file that holds it in assets/crds. */
export const CRD_FILES: Readonly<Record<string, CustomResourceDefinition>> = {
  "secrets-store.csi.x-k8s.io_secretproviderclasses.yaml": secretProviderClassCrd,
  "secrets-store.csi.x-k8s.io_secretproviderclasspodstatuses.yaml": secretProviderClassPodStatusCrd
}
