// One SecretProviderClass for each well-known provider, and what the driver reports of a pod that uses one.
const secretProviderClass = (name, provider, parameters) => ({
  apiVersion: "secrets-store.csi.x-k8s.io/v1",
  kind: "SecretProviderClass",
  metadata: { name },
  spec: { provider, parameters }
})

/** Parameters are texts; lists in them are YAML of the provider's own. */
export const PROVIDER_CLASSES = [
  {
    sample: "aws",
    title: "AWS Secrets Manager and Parameter Store",
    object: secretProviderClass("example-aws", "aws", {
      region: "us-east-1",
      objects: [
        ...["- objectName: example/database", "  objectType: secretsmanager"],
        ...["- objectName: /example/flag", "  objectType: ssmparameter", ""]
      ].join("\n")
    })
  },
  {
    sample: "azure",
    title: "Azure Key Vault",
    object: secretProviderClass("example-azure", "azure", {
      clientID: "00000000-0000-0000-0000-000000000000",
      keyvaultName: "example-vault",
      tenantId: "00000000-0000-0000-0000-000000000000",
      objects: [
        ...["array:", "  - |", "    objectName: database-password", "    objectType: secret"],
        ...['    objectVersion: ""', ""]
      ].join("\n")
    })
  },
  {
    sample: "gcp",
    title: "Google Secret Manager",
    object: secretProviderClass("example-gcp", "gcp", {
      secrets: [
        ...["- resourceName: projects/example/secrets/database/versions/latest", "  fileName: database.txt", ""]
      ].join("\n")
    })
  },
  {
    sample: "sample",
    title: "HashiCorp Vault",
    object: secretProviderClass("example", "vault", {
      vaultAddress: "http://vault.vault.svc:8200",
      roleName: "example",
      objects: [
        ...["- objectName: database-password", "  secretPath: secret/data/database", "  secretKey: password", ""]
      ].join("\n")
    })
  }
]

export const podStatusExample = () => ({
  apiVersion: "secrets-store.csi.x-k8s.io/v1",
  kind: "SecretProviderClassPodStatus",
  metadata: { name: "example-pod-default-example" },
  status: {
    podName: "example-pod",
    secretProviderClassName: "example",
    mounted: true,
    targetPath: "/var/lib/kubelet/pods/00000000-0000-0000-0000-000000000000/volumes/kubernetes.io~csi/secrets/mount",
    objects: [{ id: "database-password", version: "1" }]
  }
})
