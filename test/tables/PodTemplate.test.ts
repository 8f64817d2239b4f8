/**
 * How a container's command line becomes one of a process on this machine, row by row.
 */
import { readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { parse } from "yaml"
import { argumentsOf, type PlayedNode } from "../../layers/development/PodTemplate.ts"
import { objectAt } from "../../schemas/Json.ts"

const node: PlayedNode = {
  name: "node-a",
  directories: new Map([
    ["/var/lib/kubelet/pods", "/here/pods"],
    ["/var/lib/kubelet/plugins/csi-secrets-store", "/here/csi"],
    ["/var/lib/kubelet/plugins_registry", "/here/registry"],
    ["/var/run/secrets-store-csi-providers", "/here/providers"],
    ["/etc/kubernetes/secrets-store-csi-providers", "/here/others"]
  ]),
  ports: new Map([
    [8095, 20_001],
    [9808, 20_002]
  ])
}

const templateWith = (...args: ReadonlyArray<string>) => ({
  spec: {
    containers: [
      { name: "other", args: ["--not-ours"] },
      {
        name: "csi-driver",
        args,
        env: [
          { name: "CSI_ENDPOINT", value: "unix:///csi/csi.sock" },
          { name: "KUBE_NODE_NAME", valueFrom: { fieldRef: { fieldPath: "spec.nodeName" } } },
          { name: "POD_IP", valueFrom: { fieldRef: { fieldPath: "status.podIP" } } }
        ],
        volumeMounts: [
          { name: "plugin-dir", mountPath: "/csi" },
          { name: "registration-dir", mountPath: "/registration" },
          { name: "providers", mountPath: "/var/run/secrets-store-csi-providers/" },
          { name: "config", mountPath: "/config" }
        ]
      }
    ],
    volumes: [
      { name: "plugin-dir", hostPath: { path: "/var/lib/kubelet/plugins/csi-secrets-store/" } },
      { name: "registration-dir", hostPath: { path: "/var/lib/kubelet/plugins_registry/" } },
      { name: "providers", hostPath: { path: "/var/run/secrets-store-csi-providers" } },
      { name: "config", configMap: { name: "config" } }
    ]
  }
})

describe("arguments of a played pod", () => {
  it.each([
    { name: "what is neither path nor port stays", arg: "--v=2", expected: "--v=2" },
    { name: "a flag without a value stays", arg: "--logtostderr", expected: "--logtostderr" },
    { name: "a variable of the node", arg: "--nodeid=$(KUBE_NODE_NAME)", expected: "--nodeid=node-a" },
    {
      name: "a variable with a path in it",
      arg: "--endpoint=$(CSI_ENDPOINT)",
      expected: "--endpoint=unix:///here/csi/csi.sock"
    },
    { name: "a variable that nobody knows stays", arg: "--x=$(NOBODY)", expected: "--x=$(NOBODY)" },
    { name: "a variable without a value here stays", arg: "--x=$(POD_IP)", expected: "--x=$(POD_IP)" },
    { name: "an escaped variable is none", arg: "--x=$$(CSI_ENDPOINT)", expected: "--x=$(CSI_ENDPOINT)" },
    { name: "a path on a volume", arg: "--dir=/registration", expected: "--dir=/here/registry" },
    {
      name: "a path of the node",
      arg: "--path=/var/lib/kubelet/plugins/csi-secrets-store/csi.sock",
      expected: "--path=/here/csi/csi.sock"
    },
    {
      name: "several paths",
      arg: "--dirs=/var/run/secrets-store-csi-providers,/etc/kubernetes/secrets-store-csi-providers",
      expected: "--dirs=/here/providers,/here/others"
    },
    { name: "a port", arg: "--metrics-addr=:8095", expected: "--metrics-addr=127.0.0.1:20001" },
    { name: "a duration", arg: "--interval=2m", expected: "--interval=2m" }
  ])("$name", ({ arg, expected }) =>
    assert.deepStrictEqual(argumentsOf(templateWith(arg), "csi-driver", node), Result.succeed([expected]))
  )

  it.each([
    {
      name: "a path on no volume of the node",
      arg: "--x=/config/a",
      failure: '"/config/a" is nowhere on this machine'
    },
    {
      name: "a path that only begins alike",
      arg: "--x=/csi-other",
      failure: '"/csi-other" is nowhere on this machine'
    },
    { name: "a port that nobody has", arg: "--x=:1", failure: '":1" is nowhere on this machine' }
  ])("$name is refused", ({ arg, failure }) =>
    assert.deepStrictEqual(argumentsOf(templateWith(arg), "csi-driver", node), Result.fail(failure))
  )

  it("a container that is not there is refused", () =>
    assert.deepStrictEqual(
      argumentsOf(templateWith(), "driver", node),
      Result.fail('the template has no container "driver"')
    ))

  it("everything that the operator deploys has its place", () => {
    const file = new URL("../../assets/driver/node_single.yaml", import.meta.url)
    const template = objectAt(objectAt(parse(readFileSync(file, "utf8")), "spec"), "template")
    const args = Result.getOrElse(argumentsOf(template, "csi-driver", node), () => [])
    assert.deepStrictEqual(
      args.filter((arg) => arg.includes("/") || arg.includes("127.0.0.1")),
      [
        "--endpoint=unix:///here/csi/csi.sock",
        "--provider-volume=/here/providers",
        "--additional-provider-volume-paths=/here/others",
        "--metrics-addr=127.0.0.1:20001",
        "--kubelet-registration-path=/here/csi/csi.sock",
        "--plugin-registration-path=/here/registry",
        "--health-addr=127.0.0.1:20002"
      ]
    )
  })
})
