/**
 * The steps of the demo in which the operator is asked for something: to deploy the driver, to change how it runs, and
 * to take it away. What an administrator would type is shown, and what the API server then holds is compared.
 */
import { Clock, Effect, Fiber, Schedule } from "effect"
import { get } from "../../../layers/development/Http.ts"
import { isObject, type JsonObject, listAt, objectAt, textAt } from "../../../schemas/Json.ts"
import { DAEMON_SET, DRIVER_CONTAINER, DRIVER_NAME, LEASE } from "../../operator/Names.ts"
import * as Resource from "../../reconciler/Resource.ts"
import { holds, present, same } from "./Check.ts"
import * as Files from "./Files.ts"
import {
  changePassword,
  contentsOf,
  leftOf,
  nothing,
  often,
  onKubernetes,
  passwordsIn,
  REVOKED,
  SWITCHED,
  secretBecomes,
  showFiles,
  soon
} from "./Look.ts"
import {
  CLASS,
  DRIVER_IMAGE,
  holderOf,
  inTime,
  NAMESPACE,
  OPERATOR_NAMESPACE,
  ROTATION_SECONDS,
  SECRETS,
  type Stage,
  SWITCHED_SECONDS
} from "./Stage.ts"

// ---- looking

/** Whatever the operator makes is of one of these kinds. */
const OPERAND_KINDS = [
  "serviceaccounts",
  "configmaps",
  "clusterroles.rbac.authorization.k8s.io",
  "clusterrolebindings.rbac.authorization.k8s.io",
  "rolebindings.rbac.authorization.k8s.io",
  "csidrivers.storage.k8s.io",
  "networkpolicies.networking.k8s.io",
  "daemonsets.apps"
]

/** Without RoleBindings: those come with SecretProviderClasses. */
const OPERAND = [
  "ServiceAccount secrets-store-csi-driver-node-sa",
  "ConfigMap secrets-store-csi-driver-trusted-ca-bundle",
  "ClusterRole secretproviderclasses-role",
  "ClusterRole secrets-store-privileged-role",
  "ClusterRoleBinding secretproviderclasses-rolebinding",
  "ClusterRoleBinding secrets-store-node-privileged-binding",
  `CSIDriver ${DRIVER_NAME}`,
  "NetworkPolicy sscsi-allow-egress-to-api-server-operand",
  "NetworkPolicy sscsi-allow-ingress-to-metrics-operand",
  "NetworkPolicy sscsi-default-deny-operand",
  `DaemonSet ${DAEMON_SET}`
]

const objectsOf = ({ kubernetes }: Stage, kinds: ReadonlyArray<string>) =>
  Effect.map(Effect.forEach(kinds, kubernetes.all), (objects) => objects.flat())

const nameOf = (object: JsonObject): string =>
  `${textAt(object, "kind")} ${textAt(objectAt(object, "metadata"), "name")}`

const operandOf = (stage: Stage) => Effect.map(objectsOf(stage, OPERAND_KINDS), (objects) => objects.map(nameOf))

const daemonSetOf = (stage: Stage) =>
  Effect.flatMap(objectsOf(stage, ["daemonsets.apps"]), ([found]) => present(`DaemonSet ${DAEMON_SET}`, found))

/** Of the driver's container in the pod template: how old secrets may become. */
const AGE_FLAG = "--rotation-poll-interval="
const ageArgument = (daemonSet: JsonObject): string => {
  const podSpec = objectAt(objectAt(objectAt(daemonSet, "spec"), "template"), "spec")
  const container = listAt(podSpec, "containers")
    .filter(isObject)
    .find(({ name }) => name === DRIVER_CONTAINER)
  return String(listAt(container ?? {}, "args").find((word) => String(word).startsWith(AGE_FLAG)))
}

const clusterCsiDriver = (stage: Stage) =>
  onKubernetes(stage, Resource.get(Resource.clusterCsiDrivers, "", DRIVER_NAME))

/** "True AsExpected" by type of condition. */
const conditionsOf = (stage: Stage) =>
  Effect.map(clusterCsiDriver(stage), ({ status }) => {
    const conditions = status?.conditions ?? []
    return {
      of: (type: string) => {
        const found = conditions.find((condition) => condition.type === type)
        return found === undefined ? "" : `${found.status} ${found.reason ?? ""}`.trim()
      },
      messageOf: (type: string) => conditions.find((condition) => condition.type === type)?.message ?? ""
    }
  })

/** The operator reports a moment after it has acted. */
const conditionsBecome = (stage: Stage, wanted: Readonly<Record<string, string>>) =>
  conditionsOf(stage).pipe(
    Effect.flatMap((conditions) => {
      const found = Object.fromEntries(Object.keys(wanted).map((type) => [type, conditions.of(type)]))
      return Effect.as(same("conditions of the ClusterCSIDriver", found, { ...wanted }), conditions)
    }),
    Effect.retry(inTime)
  )

const showConditions = (wanted: Readonly<Record<string, string>>) =>
  Object.entries(wanted).map(([type, words]) => `condition ${type}: ${words}`)

// ---- acting

/** A JSON merge patch, as an administrator sends it; answers with the command that would. */
const patch = (stage: Stage, spec: JsonObject) =>
  onKubernetes(stage, Resource.mergePatch(Resource.clusterCsiDrivers, "", DRIVER_NAME, { spec })).pipe(
    Effect.as(`kubectl patch clustercsidriver ${DRIVER_NAME} --type=merge -p '${JSON.stringify({ spec })}'`)
  )

const deleteObject =
  (stage: Stage, resource: typeof Resource.pods | typeof Resource.secretProviderClasses) => (name: string) =>
    stage.api.request({ method: "DELETE", path: Resource.pathOf(resource, NAMESPACE, name) })

const withAge = (minimumRefreshAge: number) => ({
  driverType: "SecretsStore",
  secretsStore: { secretRotation: { type: "Custom", custom: { minimumRefreshAge } } }
})

// ---- the steps

export const deploy = (stage: Stage) =>
  Effect.gen(function* () {
    yield* same("objects before", yield* operandOf(stage), [])
    yield* stage.api.request({
      method: "POST",
      path: Resource.pathOf(Resource.clusterCsiDrivers),
      body: {
        apiVersion: "operator.openshift.io/v1",
        kind: "ClusterCSIDriver",
        metadata: { name: DRIVER_NAME },
        spec: { managementState: "Managed", driverConfig: withAge(ROTATION_SECONDS) }
      }
    })
    const complete = Effect.flatMap(operandOf(stage), (found) =>
      same("objects of the operand", [...found].sort(), [...OPERAND].sort())
    )
    yield* Effect.retry(complete, soon)
    const daemonSet = yield* daemonSetOf(stage)
    yield* same("argument of the driver", ageArgument(daemonSet), `${AGE_FLAG}${ROTATION_SECONDS}s`)
    yield* holds("the pod template", JSON.stringify(daemonSet), DRIVER_IMAGE)
    return [
      `ClusterCSIDriver ${DRIVER_NAME}: Managed, secrets are fetched again after ${ROTATION_SECONDS} s`,
      ...(yield* operandOf(stage)),
      `argument of the driver: ${ageArgument(daemonSet)}`
    ]
  })

const AVAILABLE = { Available: "True AsExpected", Progressing: "False AsExpected", Degraded: "False AsExpected" }

export const becomeAvailable = (stage: Stage) =>
  Effect.gen(function* () {
    yield* conditionsBecome(stage, AVAILABLE)
    const { metadata, status } = yield* clusterCsiDriver(stage)
    yield* same("node pods that are ready", status?.readyReplicas, 1)
    yield* same("number of finalizers", metadata.finalizers?.length, 1)
    return [...showConditions(AVAILABLE), `readyReplicas: ${status?.readyReplicas}   version: ${status?.version}`]
  })

const ROLE_BINDINGS = "rolebindings.rbac.authorization.k8s.io"

export const bindSecrets = (stage: Stage) =>
  Effect.gen(function* () {
    const bound = Effect.flatMap(objectsOf(stage, [ROLE_BINDINGS]), (found) =>
      Effect.as(same("number of RoleBindings", found.length, 1), found)
    )
    const binding = yield* present("a RoleBinding", (yield* Effect.retry(bound, soon))[0])
    const { name, namespace } = objectAt(binding, "metadata")
    yield* same("its namespace", namespace, NAMESPACE)
    const role = textAt(objectAt(binding, "roleRef"), "name")
    const subjects = listAt(binding, "subjects")
      .filter(isObject)
      .map((subject) => `${textAt(subject, "kind")} ${textAt(subject, "namespace")}/${textAt(subject, "name")}`)
    yield* same("who gets the rights", subjects, [
      `ServiceAccount ${OPERATOR_NAMESPACE}/secrets-store-csi-driver-node-sa`
    ])
    return [`RoleBinding ${namespace}/${name}: ClusterRole ${role}`, ...subjects]
  })

/** One new pod, and the ClusterCSIDriver says that it is over. */
const rolledOut = (stage: Stage) =>
  Effect.gen(function* () {
    const { metadata, status } = yield* Effect.map(daemonSetOf(stage), (daemonSet) => ({
      metadata: objectAt(daemonSet, "metadata"),
      status: objectAt(daemonSet, "status")
    }))
    yield* same(
      "the DaemonSet's pods",
      [status["observedGeneration"], status["updatedNumberScheduled"], status["numberAvailable"]],
      [metadata["generation"], 1, 1]
    )
    yield* same("number of pods so far", stage.driverPods().length, 2)
    const { status: ours } = yield* clusterCsiDriver(stage)
    yield* same(
      "generation of the DaemonSet in the ClusterCSIDriver",
      ours?.generations?.map(({ lastGeneration }) => lastGeneration),
      [Number(metadata["generation"])]
    )
  }).pipe(Effect.retry(inTime))

const everyTenMillis = Schedule.spaced("10 millis")

export const switchAge = (stage: Stage) =>
  Effect.gen(function* () {
    const before = ageArgument(yield* daemonSetOf(stage))
    const old = yield* present("the first pod", stage.driverPods().at(-1))
    let reads = 0
    const read = Effect.suspend(() => {
      reads++
      return same("what the pod sees meanwhile", contentsOf(Files.seenBy(stage.target)), REVOKED)
    })
    const reading = yield* Effect.forkChild(Effect.repeat(read, everyTenMillis))
    const started = yield* Clock.currentTimeMillis
    const switching = Effect.gen(function* () {
      const command = yield* patch(stage, { driverConfig: withAge(SWITCHED_SECONDS) })
      yield* rolledOut(stage)
      yield* conditionsBecome(stage, AVAILABLE)
      return command
    })
    // A read that fails ends the step.
    const command = yield* Effect.raceFirst(switching, Effect.andThen(Fiber.join(reading), Effect.never))
    yield* Fiber.interrupt(reading)
    const took = (yield* Clock.currentTimeMillis) - started
    const after = ageArgument(yield* daemonSetOf(stage))
    yield* same("argument in the pod template", after, `${AGE_FLAG}${SWITCHED_SECONDS}s`)
    const young = yield* present("the second pod", stage.driverPods().at(-1))
    yield* same("the new process has the argument", young.args.includes(after), true)
    yield* same("exit code of the old process", yield* exitOf(old.driver), 0)
    yield* same("number of registrations so far", stage.registered().length, 2)
    yield* same("status of /readyz", (yield* get(`${stage.healthUrl}/readyz`)).status, 200)
    return [
      command,
      `DaemonSet ${DAEMON_SET}: ${before} -> ${after}`,
      `pod ${old.name} (pid ${old.driver.pid}) -> ${young.name} (pid ${young.driver.pid}), ${took} ms`,
      `meanwhile the pod read its secrets ${reads} times, each time all of them`
    ]
  })

export const refreshSwitched = (stage: Stage) =>
  Effect.gen(function* () {
    const [csiDriver] = yield* objectsOf(stage, ["csidrivers.storage.k8s.io"])
    yield* same("CSIDriver asks the kubelet to republish", objectAt(csiDriver ?? {}, "spec")["requiresRepublish"], true)
    const before = Files.writtenMillis(stage.target)
    yield* changePassword(stage, SWITCHED)
    // By it the new driver learns of a volume that another one has mounted.
    yield* stage.kubelet.publish(stage.volume)
    const arrived = Effect.suspend(() =>
      same("contents after the refresh", contentsOf(Files.seenBy(stage.target)), SWITCHED)
    )
    yield* Effect.retry(arrived, often)
    const age = Files.writtenMillis(stage.target) - before
    yield* same(`not before ${SWITCHED_SECONDS} s`, age >= SWITCHED_SECONDS * 1_000, true)
    yield* secretBecomes(stage, SWITCHED.password)
    return [
      "the kubelet republishes the volume, as the CSIDriver asks it to",
      `${(age / 1_000).toFixed(1)} s after the refresh before it, by the new driver itself:`,
      ...showFiles(Files.seenBy(stage.target))
    ]
  })

export const publishSecond = (stage: Stage) =>
  Effect.gen(function* () {
    const target = yield* stage.kubelet.publish(stage.second)
    const files = Files.seenBy(target)
    yield* same("contents of the second pod's files", contentsOf(files), SWITCHED)
    return [`pod ${stage.second.podName}, SecretProviderClass ${stage.second.secretProviderClass}`, ...showFiles(files)]
  })

const podOf = ({ podName }: Stage["volume"]) => `${NAMESPACE}/${podName}`

export const askForRemoval = (stage: Stage) =>
  Effect.gen(function* () {
    // Two never got their volumes: they are nobody's loss.
    for (const { podName } of [stage.withoutClass, stage.withoutProvider]) {
      yield* deleteObject(stage, Resource.pods)(podName)
    }
    const command = yield* patch(stage, { managementState: "Removed" })
    const wanted = { Available: "True AsExpected", Progressing: "True WaitingForPods" }
    const conditions = yield* conditionsBecome(stage, wanted)
    const message = conditions.messageOf("Progressing")
    yield* holds("the condition's message", message, `2 pods`, podOf(stage.volume), podOf(stage.second))
    yield* daemonSetOf(stage)
    // Whose contents somebody may have changed meanwhile.
    yield* same("files of the volume", Object.keys(contentsOf(Files.seenBy(stage.target))), Object.keys(SECRETS))
    yield* same("status of /readyz of the driver", (yield* get(`${stage.healthUrl}/readyz`)).status, 200)
    return [command, ...showConditions(wanted), ...message.split("; ")]
  })

/** How a process has ended, or that it has not. */
const exitOf = ({ exited }: Stage["operator"]) =>
  Effect.map(Effect.timeoutOption(exited, "10 seconds"), (how) =>
    how._tag === "Some" ? how.value : "still running after 10 s"
  )

export const deleteLastPod = (stage: Stage) =>
  Effect.gen(function* () {
    const { driver, name } = yield* present("the driver's pod", stage.driverPods().at(-1))
    yield* daemonSetOf(stage)
    yield* stage.kubelet.unpublish(stage.second)
    yield* same("what is left of the volume", leftOf(stage, stage.second), nothing)
    yield* deleteObject(stage, Resource.pods)(stage.second.podName)
    // The operator looks for pods now and then. Of SecretProviderClasses that go it hears at once.
    for (const className of [CLASS, stage.second.secretProviderClass, stage.withoutProvider.secretProviderClass]) {
      yield* deleteObject(stage, Resource.secretProviderClasses)(className)
    }
    const gone = Effect.flatMap(objectsOf(stage, ["daemonsets.apps"]), (found) =>
      same("DaemonSets", found.map(nameOf), [])
    )
    yield* Effect.retry(gone, inTime)
    yield* same("exit code of the driver", yield* exitOf(driver), 0)
    yield* same("process", Files.isAlive(driver.pid), false)
    const sockets = [stage.socket, stage.registrationSocket].filter(Files.isSocket)
    yield* same("sockets", sockets, [])
    const logs = stage.driverPods().map((pod) => pod.driver.output())
    yield* same("secrets in the logs of both drivers", logs.flatMap(passwordsIn), [])
    return [
      `pod ${stage.second.podName} is gone, and so is DaemonSet ${DAEMON_SET}`,
      `pod ${name}: exit code 0, no process, no socket, no secret in its log`
    ]
  })

export const beRemoved = (stage: Stage) =>
  Effect.gen(function* () {
    const empty = Effect.flatMap(operandOf(stage), (found) => same("objects of the operand", found, []))
    yield* Effect.retry(empty, inTime)
    const wanted = { Available: "False Removed", Progressing: "False Removed", Degraded: "False AsExpected" }
    yield* conditionsBecome(stage, wanted)
    const { metadata } = yield* clusterCsiDriver(stage)
    yield* same("finalizers", metadata.finalizers ?? [], [])
    yield* same("pods", (yield* objectsOf(stage, ["pods"])).map(nameOf), [])
    return [
      `of the ${OPERAND.length} objects and the RoleBinding none is left`,
      ...showConditions(wanted),
      "no finalizer"
    ]
  })

export const stop = (stage: Stage) =>
  Effect.gen(function* () {
    const { operator } = stage
    yield* operator.kill("SIGTERM")
    yield* same("exit code", yield* exitOf(operator), 0)
    yield* same("process", Files.isAlive(operator.pid), false)
    yield* same("who holds the Lease", yield* holderOf(stage.api), "")
    yield* same("secrets in the operator's log", passwordsIn(operator.output()), [])
    return [`exit code 0, no process, Lease ${OPERATOR_NAMESPACE}/${LEASE} is nobody's`]
  })
