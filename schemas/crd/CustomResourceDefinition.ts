/**
 * The shape of a CustomResourceDefinition, as far as ours have it, and how a kind's schemas become one.
 *
 * @source https://kubernetes.io/docs/reference/kubernetes-api/extend-resources/custom-resource-definition-v1
 */
import type { Schema } from "effect"
import { type CrdSchema, toCrdSchema } from "./toCrdSchema.ts"

interface Version {
  readonly name: string
  readonly served: true
  readonly storage: boolean
  readonly deprecated?: true
  readonly deprecationWarning?: string
  /** The status has an address of its own. */
  readonly subresources?: { readonly status: Readonly<Record<string, never>> }
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
    readonly scope: "Namespaced" | "Cluster"
    readonly versions: ReadonlyArray<Version>
  }
}

/** One rule of x-kubernetes-validations: a condition in CEL, and what is said when it does not hold. */
export interface Rule {
  readonly rule: string
  readonly message: string
}

/** An annotation for a schema whose objects have to obey rules. */
export const rules = (...list: ReadonlyArray<Rule>) => ({ "x-kubernetes-validations": list })

const text = (description: string): CrdSchema => ({ type: "string", description })

/** What a kind says of its objects besides their fields. */
interface Demands {
  /** Fields that every object has. */
  readonly required?: ReadonlyArray<string>
  /** The only names that an object may have. */
  readonly names?: ReadonlyArray<string>
  readonly rules?: ReadonlyArray<Rule>
}

/**
 * @shape  (description, fields of its own, what is demanded) -> the schema of a Kubernetes object
 * @errors throws NotStructural for a schema that has no such form
 */
export const versionSchema = (
  description: string,
  fields: Readonly<Record<string, Schema.Constraint>>,
  demands: Demands = {}
): Version["schema"] => ({
  openAPIV3Schema: {
    type: "object",
    description,
    ...(demands.required === undefined ? {} : { required: demands.required }),
    properties: {
      apiVersion: text("group and version of this object"),
      kind: text("kind of this object"),
      metadata: {
        type: "object",
        ...(demands.names === undefined ? {} : { properties: { name: { type: "string", enum: demands.names } } })
      },
      ...Object.fromEntries(Object.entries(fields).map(([name, schema]) => [name, toCrdSchema(schema)]))
    },
    ...(demands.rules === undefined ? {} : rules(...demands.rules))
  }
})

/** @shape (what it is called, where its objects are, its versions) -> the definition */
export const definition = ({
  annotations,
  group,
  kind,
  plural,
  scope,
  versions
}: {
  readonly annotations: Readonly<Record<string, string>>
  readonly group: string
  readonly kind: string
  readonly plural: string
  readonly scope: "Namespaced" | "Cluster"
  readonly versions: ReadonlyArray<Version>
}): CustomResourceDefinition => ({
  apiVersion: "apiextensions.k8s.io/v1",
  kind: "CustomResourceDefinition",
  metadata: { name: `${plural}.${group}`, annotations },
  spec: {
    group,
    names: { kind, listKind: `${kind}List`, plural, singular: kind.toLowerCase() },
    scope,
    versions
  }
})
