/**
 * The CustomResourceDefinition of ClusterCSIDriver for clusters that are not OpenShift: what an API server accepts
 * there. On OpenShift the release brings the definition, and this one must not be applied over it.
 *
 * It is the same API and no wider: the same names, fields, bounds, rules and messages. The names of other drivers stay,
 * so that a file that is right on OpenShift is right here, and a wrong one is wrong in the same words. What other
 * drivers configure is kept without being looked at.
 *
 * @source reference/operator.md 2.1, 2.2, 2.4
 */
import { Schema } from "effect"
import { definition, type Rule, rules, versionSchema } from "./CustomResourceDefinition.ts"

const DRIVER = "secrets-store.csi.k8s.io"

/** Of every driver that OpenShift knows. */
const NAMES = [
  ...["ebs.csi.aws.com", "efs.csi.aws.com", "disk.csi.azure.com", "file.csi.azure.com"],
  ...["filestore.csi.storage.gke.io", "pd.csi.storage.gke.io", "cinder.csi.openstack.org", "csi.vsphere.vmware.com"],
  ...["manila.csi.openstack.org", "csi.kubevirt.io", "csi.sharedresource.openshift.io"],
  ...["diskplugin.csi.alibabacloud.com", "vpc.block.csi.ibm.io", "powervs.csi.ibm.com", DRIVER, "smb.csi.k8s.io"]
]

/** A field is there exactly when its union's discriminator says so. */
const union = (discriminator: string, value: string, field: string, message: string): Rule => ({
  rule: `(self.${discriminator} == '${value}') == has(self.${field})`,
  message
})

/** Of tokenRequests, whatever is missing on the way to it. */
const tokenRequestsType = (object: string) =>
  `${object}.?spec.?driverConfig.?secretsStore.?tokenRequests.?type.orValue('')`

const OBJECT_RULES: ReadonlyArray<Rule> = [
  {
    rule: `!has(self.spec.driverConfig) || self.spec.driverConfig.driverType != 'SecretsStore' || self.metadata.name == '${DRIVER}'`,
    message: `driverType 'SecretsStore' requires metadata.name '${DRIVER}'`
  },
  {
    rule: `self.metadata.name != '${DRIVER}' || !has(self.spec.driverConfig) || self.spec.driverConfig.driverType == 'SecretsStore'`,
    message: `metadata.name '${DRIVER}' requires driverType 'SecretsStore'`
  },
  {
    rule: `${tokenRequestsType("oldSelf")} != 'Managed' || ${tokenRequestsType("self")} == 'Managed'`,
    message: "tokenRequests type cannot be changed from Managed"
  }
]

const int32 = (description: string) => Schema.Int.annotate({ description, format: "int32" })
const int64 = (description: string) => Schema.Int.annotate({ description, format: "int64" })
const within = (description: string, minimum: number, maximum: number) =>
  Schema.Int.check(Schema.isBetween({ minimum, maximum })).annotate({ description, format: "int32" })
const text = (description: string) => Schema.String.annotate({ description })
const listOf = (...keys: ReadonlyArray<string>) => ({
  "x-kubernetes-list-type": "map",
  "x-kubernetes-list-map-keys": keys
})

/** An object that is kept as it is. */
const anything = (description: string) =>
  Schema.Record(Schema.String, Schema.Unknown).annotate({ description, "x-kubernetes-preserve-unknown-fields": true })

const SecretRotation = Schema.Struct({
  type: Schema.Literals(["None", "Custom"]).annotate({
    description: "None: secrets are fetched when a pod starts, and not again. Custom: as custom says"
  }),
  custom: Schema.optionalKey(
    Schema.Struct({
      minimumRefreshAge: Schema.optionalKey(
        within("seconds that have to pass before a secret is fetched again", 1, 31_560_000)
      )
    })
      .check(Schema.isMinProperties(1))
      .annotate({ description: "how often secrets are fetched again" })
  )
}).annotate({
  description: "whether secrets are fetched again while a pod runs; every two minutes when nothing is said",
  ...rules(union("type", "Custom", "custom", "custom must be set when type is 'Custom', and must not be set otherwise"))
})

const Audience = Schema.Struct({
  audience: Schema.String.check(Schema.isMaxCodePoints(253)).annotate({
    description: "whom the token is meant for; empty for the audiences of the API server"
  }),
  expirationSeconds: Schema.optionalKey(within("seconds that the token is valid", 600, 315_360_000))
})

const TokenRequests = Schema.Struct({
  type: Schema.Literals(["Managed", "Unmanaged"]).annotate({
    description:
      "Managed: the CSIDriver asks for the tokens of managed. Unmanaged: what it asks for is left to others. Managed cannot be taken back"
  }),
  managed: Schema.optionalKey(
    Schema.Struct({
      audiences: Schema.optionalKey(
        Schema.Array(Audience)
          .check(Schema.isMaxLength(10))
          .annotate({
            description: "one token for each; an empty list asks for none",
            ...listOf("audience")
          })
      )
    })
      .check(Schema.isMinProperties(1))
      .annotate({ description: "the tokens of the pod's service account that providers are given" })
  )
}).annotate({
  description: "which tokens of the pod's service account the kubelet hands to the driver",
  ...rules(
    union("type", "Managed", "managed", "managed must be set when type is 'Managed', and must not be set otherwise")
  )
})

const SecretsStore = Schema.Struct({
  secretRotation: Schema.optionalKey(SecretRotation),
  tokenRequests: Schema.optionalKey(TokenRequests)
})
  .check(Schema.isMinProperties(1))
  .annotate({ description: "configures the Secrets Store CSI driver" })

const onlyFor = (driverType: string, field: string): Rule =>
  union(
    "driverType",
    driverType,
    field,
    `${field} must be set if driverType is '${driverType}', but remain unset otherwise`
  )

const otherDriver = Schema.optionalKey(anything("of another driver; kept as it is"))

const DriverConfig = Schema.Struct({
  driverType: Schema.Literals(["", "AWS", "Azure", "GCP", "IBMCloud", "vSphere", "SecretsStore"]).annotate({
    description: "which driver is configured"
  }),
  secretsStore: Schema.optionalKey(SecretsStore),
  aws: otherDriver,
  azure: otherDriver,
  gcp: otherDriver,
  ibmcloud: otherDriver,
  vSphere: otherDriver
}).annotate({
  description: "configures the driver",
  ...rules(onlyFor("IBMCloud", "ibmcloud"), onlyFor("SecretsStore", "secretsStore"))
})

const logLevel = (whose: string) =>
  Schema.Literals(["", "Normal", "Debug", "Trace", "TraceAll"]).annotate({
    description: `how much ${whose} logs`,
    default: "Normal"
  })

const ClusterCSIDriverSpec = Schema.Struct({
  managementState: Schema.optionalKey(
    Schema.String.check(Schema.isPattern(/^(Managed|Unmanaged|Force|Removed)$/u)).annotate({
      description: "Managed: the driver is installed and kept so. Unmanaged: left alone. Removed: taken away"
    })
  ),
  logLevel: Schema.optionalKey(logLevel("the driver")),
  operatorLogLevel: Schema.optionalKey(logLevel("the operator")),
  unsupportedConfigOverrides: Schema.optionalKey(Schema.NullOr(anything("not looked at"))),
  observedConfig: Schema.optionalKey(Schema.NullOr(anything("what the operator observed of its surroundings"))),
  storageClassState: Schema.optionalKey(
    Schema.Literals(["", "Managed", "Unmanaged", "Removed"]).annotate({ description: "not looked at: no StorageClass" })
  ),
  driverConfig: Schema.optionalKey(DriverConfig)
}).annotate({ description: "what is wanted" })

/** Of a label, with or without the name of a domain before it. */
const CONDITION_TYPE =
  /^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$/u

const OperatorCondition = Schema.Struct({
  type: Schema.String.check(Schema.isPattern(CONDITION_TYPE), Schema.isMaxCodePoints(316)).annotate({
    description: "what is true or not"
  }),
  status: Schema.Literals(["True", "False", "Unknown"]).annotate({ description: "whether it is" }),
  lastTransitionTime: Schema.String.annotate({ description: "since when the status is this one", format: "date-time" }),
  reason: Schema.optionalKey(text("why, in one word")),
  message: Schema.optionalKey(text("why, for people"))
})

const OperandGeneration = Schema.Struct({
  group: text("group of the resource"),
  resource: text("resource, in the plural"),
  namespace: text("namespace of the object"),
  name: text("name of the object"),
  lastGeneration: Schema.optionalKey(int64("generation that was last written")),
  hash: Schema.optionalKey(text("not used"))
})

const ClusterCSIDriverStatus = Schema.Struct({
  conditions: Schema.optionalKey(
    Schema.Array(OperatorCondition).annotate({ description: "how the driver is", ...listOf("type") })
  ),
  generations: Schema.optionalKey(
    Schema.Array(OperandGeneration).annotate({
      description: "which objects the operator wrote last",
      ...listOf("group", "resource", "namespace", "name")
    })
  ),
  observedGeneration: Schema.optionalKey(int64("generation of this object that was last acted on")),
  version: Schema.optionalKey(text("version of the operator")),
  readyReplicas: Schema.optionalKey(int32("pods that are ready")),
  latestAvailableRevision: Schema.optionalKey(
    Schema.Int.annotate({
      description: "not used",
      format: "int32",
      ...rules({ rule: "self >= oldSelf", message: "must only increase" })
    })
  )
}).annotate({ description: "what was observed" })

/**
 * @shape  the definition, as an object; one version, with a status apart
 * @errors none
 * @source reference/operator.md 2
 */
export const clusterCsiDriverCrd = definition({
  group: "operator.openshift.io",
  kind: "ClusterCSIDriver",
  plural: "clustercsidrivers",
  scope: "Cluster",
  // Where this API was agreed on. What makes a definition part of an OpenShift release has no place here.
  annotations: { "api-approved.openshift.io": "https://github.com/openshift/api/pull/701" },
  versions: [
    {
      name: "v1",
      served: true,
      storage: true,
      subresources: { status: {} },
      schema: versionSchema(
        "ClusterCSIDriver says whether and how a CSI driver is installed",
        { spec: ClusterCSIDriverSpec, status: ClusterCSIDriverStatus },
        { required: ["spec"], names: NAMES, rules: OBJECT_RULES }
      )
    }
  ]
})
