// What OpenShift's console shows: samples for its YAML editor, and a quick start.
import { stringify } from "yaml"
import { PROVIDER_CLASSES } from "./examples.mjs"
import { DRIVER } from "./place.mjs"

const sample = ({ object, sample, title }) => ({
  apiVersion: "console.openshift.io/v1",
  kind: "ConsoleYAMLSample",
  metadata: { name: `secrets-store-csi-secretproviderclass-${sample}` },
  spec: {
    targetResource: { apiVersion: object.apiVersion, kind: object.kind },
    title: `SecretProviderClass: ${title}`,
    description: `Names secrets of ${title} that pods mount as files.`,
    yaml: stringify(object, { lineWidth: 0 })
  }
})

const examplePod = () => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "secrets-store-example" },
  spec: {
    securityContext: { fsGroup: 2000, runAsUser: 1000, runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
    containers: [
      {
        name: "busybox",
        image: "registry.k8s.io/e2e-test-images/busybox:1.29-4",
        command: ["/bin/sleep", "10000"],
        securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
        volumeMounts: [{ name: "secrets", mountPath: "/mnt/secrets-store", readOnly: true }]
      }
    ],
    volumes: [
      { name: "secrets", csi: { driver: DRIVER, readOnly: true, volumeAttributes: { secretProviderClass: "example" } } }
    ]
  }
})

const task = (title, description, instructions) => ({
  title,
  description,
  review: { instructions, failedTaskHelp: "Go through the steps of this task again." },
  summary: { success: `Done: ${title}`, failed: "Try the steps again." }
})

const quickStart = (icon) => ({
  apiVersion: "console.openshift.io/v1",
  kind: "ConsoleQuickStart",
  metadata: { name: "secrets-store-csi-example", annotations: { "capability.openshift.io/name": "Console" } },
  spec: {
    displayName: "Secrets Store CSI Driver Operator Example",
    tags: ["example", "operator"],
    durationMinutes: 10,
    icon,
    description: "Mount a secret of an external store into a pod.",
    prerequisites: [
      "The operator is installed, and a ClusterCSIDriver tells it to run the driver.",
      "The provider of your secret store is installed."
    ],
    introduction: "A SecretProviderClass names the secrets; a pod with a volume of it finds them as files.",
    tasks: [
      task(
        "Open the operator",
        "1. Open **Installed Operators**.\n1. Choose **Secrets Store CSI Driver Operator**.",
        "Do you see the operator's page?"
      ),
      task(
        "Choose a project",
        "Choose a project of your own in the list at the top, or make one.",
        "Is your project the chosen one?"
      ),
      task(
        "Create a SecretProviderClass",
        "1. Choose **Secret Provider Class**, then **Create**.\n1. Open the samples and take that of your provider.\n" +
          "1. Call it `example`, fill in your own values and create it.",
        "Is the SecretProviderClass `example` in your project?"
      ),
      task(
        "Run a pod that mounts it",
        `Create this pod in your project:\n\n\`\`\`yaml\n${stringify(examplePod(), { lineWidth: 0 })}\`\`\`\n\n` +
          "In its terminal, list the files:\n\n```\nls /mnt/secrets-store/\n```",
        "Are the files of your secrets listed?"
      )
    ],
    conclusion: "The files follow the store while the pod runs, unless rotation is turned off in the ClusterCSIDriver."
  }
})

/** By file name. */
export const consoleObjects = (icon) => ({
  ...Object.fromEntries(PROVIDER_CLASSES.map((it) => [`console-sample-${it.sample}.yaml`, sample(it)])),
  "console-quickstart.yaml": quickStart(icon)
})
