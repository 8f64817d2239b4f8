/**
 * Changes for the worse that the simulation has to notice: what upstream's releases did (D1 to D8), and mistakes in
 * decisions of ours. Each is text that stands in its file exactly once, so that it cannot quietly come to change nothing.
 */

interface Change {
  readonly file: string
  readonly from: string
  readonly to: string
}

export interface PlantedMistake {
  readonly name: string
  readonly changes: ReadonlyArray<Change>
  /** The promises that may notice it. */
  readonly breaks: ReadonlyArray<string>
  readonly scenario: "node" | "operator"
  /** Of a run, in virtual time. */
  readonly hours: number
  /** Tried first: the first one that has found it. */
  readonly seed: number
}

export const PLANTED: ReadonlyArray<PlantedMistake> = [
  {
    name: "D1: unchanged content does not set the clock, so that every republish calls the provider",
    changes: [
      {
        file: "src/volume/VolumeContent.ts",
        from: "    lastSuccessMillis,\n    schedule:\n      known === undefined\n",
        to: "    lastSuccessMillis: changed || known === undefined ? lastSuccessMillis : known.lastSuccessMillis,\n    schedule:\n      known !== undefined && !changed\n        ? { ...Rotation.afterSuccess(interval, lastSuccessMillis), dueMillis: Number.POSITIVE_INFINITY }\n        : known === undefined\n"
      },
      {
        file: "src/volume/VolumeContent.ts",
        from: "if (!changed) yield* MountedFiles.touch",
        to: "if (changed) yield* MountedFiles.touch"
      },
      {
        file: "src/volume/NodePublish.ts",
        from: "      ? Rotation.withTokens(record.schedule, false)\n      : record.schedule\n",
        to: '      ? Rotation.withTokens(record.schedule, false)\n      : record.schedule.interval._tag === "Every" && record.lastSuccessMillis + record.schedule.interval.millis <= nowMillis\n        ? { ...record.schedule, dueMillis: nowMillis }\n        : record.schedule\n'
      }
    ],
    breaks: ["S11 providersAreSpared", "S11 providersAreCalledWhenDue"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "D2: a directory that is young enough is answered OK before anybody looks for a mount",
    changes: [
      {
        file: "src/volume/NodePublish.ts",
        from: "  if (table.get(targetPath)?.podStatusName === undefined) return false\n  const { mount, populated }",
        to: "  const { rotationPollIntervalMillis } = yield* Settings\n  const touched = yield* MountedFiles.lastChange(targetPath)\n  if (rotationEnabled && touched !== undefined && (yield* Clock.currentTimeMillis) < touched + rotationPollIntervalMillis) return true\n  if (table.get(targetPath)?.podStatusName === undefined) return false\n  const { mount, populated }"
      }
    ],
    breaks: ["S1 publishedHoldsOneReply"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "D3: a provider is never told which versions the volume holds",
    changes: [{ file: "src/volume/VolumeContent.ts", from: "known?.objectVersions ?? [], tell)", to: "[], tell)" }],
    breaks: ["S11 providersAreToldVersions"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "D4: a refresh that fails is only counted",
    changes: [
      {
        file: "src/volume/PublishReport.ts",
        from: "    if (volume !== undefined) yield* tellFailure(volume, progress, failure, REFRESH_FAILED)\n",
        to: ""
      }
    ],
    breaks: ["S20 failuresAreTold"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "D5: a Secret is written whole at every look, whoever has written what in it",
    changes: [
      {
        file: "src/sync/SecretPlan.ts",
        from: '  if (!isOurs(live) && !wanted.adopts) return { _tag: "Foreign" }\n',
        to: '  const without = (live: object | undefined) => Object.fromEntries(Object.keys(live ?? {}).map((key) => [key, null]))\n  const fresh = whole(wanted)\n  return {\n    _tag: "Patch",\n    changes: ["data"],\n    patch: {\n      data: { ...without(live.data), ...fresh.data },\n      metadata: {\n        finalizers: null,\n        labels: { ...without(live.metadata.labels), ...fresh.metadata.labels },\n        annotations: { ...without(live.metadata.annotations), ...fresh.metadata.annotations },\n        ownerReferences: fresh.metadata.ownerReferences\n      }\n    }\n  }\n'
      },
      { file: "src/sync/SecretSync.ts", from: "    if (!isKnown) {", to: "    if (isKnown || !isKnown) {" }
    ],
    breaks: ["S10 quietMeansNoWrites", "S7 secretsOfOthersStay"],
    scenario: "node",
    hours: 0.3,
    seed: 1
  },
  {
    name: "D6: owners of a Secret are told apart by name",
    changes: [
      {
        file: "src/sync/OwnerReferences.ts",
        from: "new Set(references.map(({ uid }) => uid))",
        to: "new Set(references.map(({ name }) => name))"
      },
      { file: "src/sync/OwnerReferences.ts", from: "known.has(reference.uid)", to: "known.has(reference.name)" },
      { file: "src/sync/OwnerReferences.ts", from: "known.add(reference.uid)", to: "known.add(reference.name)" }
    ],
    breaks: ["S9 usersOwnTheirSecret", "S9 usedSecretStays"],
    scenario: "node",
    hours: 0.3,
    seed: 3
  },
  {
    name: "D7: two volumes whose names make one name share a pod status",
    changes: [
      {
        file: "src/volume/PodStatus.ts",
        from: '  if (isOthers(existing, wanted)) return { _tag: "OtherVolume" }\n',
        to: ""
      }
    ],
    breaks: ["S13 podStatusNamesItsVolume", "S13 podStatusIsNotTaken"],
    scenario: "node",
    hours: 0.3,
    seed: 1
  },
  {
    name: "D8: a Secret is made of files that are read through the link one by one",
    changes: [
      {
        file: "src/sync/SecretFiles.ts",
        from: "yield* files.readFile(absolute)",
        to: "yield* files.readFile(absolute === path ? absolute : `${targetPath}/${path}`)"
      },
      {
        file: "src/sync/SecretFiles.ts",
        from: "if ((yield* current) !== generation) {",
        to: "if (generation === null) {"
      }
    ],
    breaks: ["S8 secretIsOneGeneration"],
    scenario: "node",
    hours: 1,
    seed: 96
  },
  {
    name: "the old ..data is removed before the new one takes its place",
    changes: [
      {
        file: "src/volume/AtomicWriter.ts",
        from: "  const files = yield* FileSystem.FileSystem\n  yield* files\n    .rename(",
        to: "  const files = yield* FileSystem.FileSystem\n  yield* Effect.ignore(files.remove(`${targetPath}/${DATA}`))\n  yield* files\n    .rename("
      }
    ],
    breaks: ["S3 publishedNeverGoesBack", "S3 aFileNeverDisappears"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "names of new files are made after the exchange",
    changes: [
      {
        file: "src/volume/AtomicWriter.ts",
        from: "    yield* makeLinks(work, change, madeLinks)\n    yield* pause\n    yield* exchange(targetPath, generation)\n",
        to: "    yield* pause\n    yield* exchange(targetPath, generation)\n    yield* makeLinks(work, change, madeLinks)\n"
      }
    ],
    breaks: ["S3 publishedNeverGoesBack"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "what a write that did not end has left stays",
    changes: [
      {
        file: "src/volume/AtomicWriter.ts",
        from: "const left = yield* removeAll(work, change.leftovers)",
        to: "const left: Array<string> = []"
      }
    ],
    breaks: ["S15 oldGenerationsGo", "L1 everyVolumeIsPublished", "L2 newestGenerationArrives", "L3 askedForArrives"],
    scenario: "node",
    hours: 0.3,
    seed: 4
  },
  {
    name: "content of the same size counts as the same",
    changes: [
      {
        file: "src/volume/AtomicWriter.ts",
        from: "Buffer.compare(bytes, Redacted.value(contents)) === 0",
        to: "bytes.length === Redacted.value(contents).length"
      }
    ],
    breaks: ["L2 newestGenerationArrives", "L3 askedForArrives"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "a generation that was replaced is removed at once",
    changes: [
      { file: "src/volume/OldGenerations.ts", from: "const GRACE_MILLIS = 1_000", to: "const GRACE_MILLIS = 0" }
    ],
    breaks: ["S2 readersMayFinish"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "an empty mount counts as a volume",
    changes: [
      {
        file: "src/volume/Decision.ts",
        from: 'if (observed.mount !== "Mounted" || !observed.populated) return { _tag: "Mount"',
        to: 'if (observed.mount !== "Mounted") return { _tag: "Mount"'
      }
    ],
    breaks: ["S1 publishedHoldsOneReply"],
    scenario: "node",
    hours: 0.3,
    seed: 4
  },
  {
    name: "a mount that was left over is mounted over",
    changes: [
      {
        file: "src/volume/NodePublish.ts",
        from: "  if (leftover) yield* Effect.mapError(mounter.unmount(targetPath), notMounted)\n",
        to: ""
      }
    ],
    breaks: ["S1 publishedHoldsOneReply", "S1 failedPublishLeavesNoMount", "L1 everyVolumeIsPublished"],
    scenario: "node",
    hours: 0.3,
    seed: 4
  },
  {
    name: "a first publish that fails keeps its mount",
    changes: [
      {
        file: "src/volume/NodePublish.ts",
        from: 'exit._tag === "Success" ? Effect.void : undo(volume, { generation, mountedMillis }, exit.cause)',
        to: "Effect.void"
      }
    ],
    breaks: ["S1 failedPublishLeavesNoMount"],
    scenario: "node",
    hours: 0.3,
    seed: 1
  },
  {
    name: "a filled mount that was never recorded is believed",
    changes: [
      {
        file: "src/volume/Decision.ts",
        from: '  if (observed.record === "Unrecorded") return { _tag: "Complete" }\n',
        to: ""
      }
    ],
    breaks: ["S13 podStatusNamesItsVolume"],
    scenario: "node",
    hours: 0.3,
    seed: 7
  },
  {
    name: "publish calls of one volume run beside each other",
    changes: [
      {
        file: "src/volume/NodePublish.ts",
        from: "    .exclusive(volume.targetPath, act(volume, progress))\n",
        to: "    .exclusive(volume.targetPath, Effect.void)\n    .pipe(Effect.andThen(act(volume, progress)))\n"
      }
    ],
    breaks: [
      "S5 contentStaysOnTmpfs",
      "S1 publishedHoldsOneReply",
      "S4 unpublishedStaysGone",
      "S4 unpublishLeavesNothing",
      "S12 writesStayInside",
      "S3 publishedNeverGoesBack",
      "S1 failedPublishLeavesNoMount"
    ],
    scenario: "node",
    hours: 0.3,
    seed: 5
  },
  {
    name: "unpublish does not wait for whoever works on the volume",
    changes: [
      {
        file: "src/volume/NodeUnpublish.ts",
        from: "yield* table.exclusive(targetPath, Effect.uninterruptible(removeTarget(targetPath)))",
        to: "yield* Effect.uninterruptible(removeTarget(targetPath))"
      }
    ],
    breaks: [
      "S4 unpublishedStaysGone",
      "S4 unpublishedIsLeftAlone",
      "S4 unpublishLeavesNothing",
      "S12 writesStayInside",
      "S1 failedPublishLeavesNoMount"
    ],
    scenario: "node",
    hours: 0.3,
    seed: 48
  },
  {
    name: "unpublish forgets nothing",
    changes: [
      { file: "src/volume/NodeUnpublish.ts", from: "  if (left.length === 0) table.remove(targetPath)\n", to: "" }
    ],
    breaks: ["S15 nothingIsRemembered"],
    scenario: "node",
    hours: 0.3,
    seed: 1
  },
  {
    name: "what unpublish could not remove counts as removed",
    changes: [
      { file: "src/volume/NodeUnpublish.ts", from: "    if (left.length > 0) {", to: "    if (left.length < 0) {" }
    ],
    breaks: ["S4 unpublishLeavesNothing", "S4 unpublishedStaysGone"],
    scenario: "node",
    hours: 0.3,
    seed: 4
  },
  {
    name: "a volume is due a minute early",
    changes: [
      {
        file: "src/volume/Rotation.ts",
        from: "Number.POSITIVE_INFINITY : nowMillis + interval.millis,",
        to: "Number.POSITIVE_INFINITY : nowMillis + interval.millis - 60_000,"
      }
    ],
    breaks: ["S11 providersAreSpared", "S11 providersAreCalledWhenDue"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "a refresh that fails is not tried again",
    changes: [
      {
        file: "src/volume/Rotation.ts",
        from: "dueMillis: failed.nowMillis + Math.max(hint, Math.round(Math.min(jittered, longest))),",
        to: "dueMillis: Number.POSITIVE_INFINITY + 0 * hint * jittered * longest,"
      }
    ],
    breaks: ["L2 newestGenerationArrives"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "after a restart every volume is due",
    changes: [
      { file: "src/volume/NodePublish.ts", from: "(yield* MountedFiles.lastChange(targetPath)) ?? 0", to: "0" }
    ],
    breaks: ["S11 providersAreSpared", "S11 providersAreCalledWhenDue"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "unchanged content leaves the mtime that a restart goes by",
    changes: [
      {
        file: "src/volume/VolumeContent.ts",
        from: "if (!changed) yield* MountedFiles.touch",
        to: "if (changed) yield* MountedFiles.touch"
      }
    ],
    breaks: ["S11 providersAreSpared", "S11 providersAreCalledWhenDue"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "a wish does not make its volume due",
    changes: [
      {
        file: "src/volume/Rotation.ts",
        from: "dueMillis: Math.min(schedule.dueMillis, nowMillis)",
        to: "dueMillis: Math.max(schedule.dueMillis, nowMillis)"
      }
    ],
    breaks: ["L3 askedForArrives"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "a wish that was fulfilled is not recorded",
    changes: [
      {
        file: "src/volume/VolumeContent.ts",
        from: "    objectVersions,\n    honoured: asked,\n    knownName:",
        to: '    objectVersions,\n    honoured: { pod: "", secretProviderClass: "" },\n    knownName:'
      }
    ],
    breaks: ["S14 pinnedNeverChanges", "S11 providersAreSpared", "S11 providersAreCalledWhenDue"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "a volume that was refreshed once stays busy",
    changes: [{ file: "src/volume/Refresher.ts", from: "          busy.delete(targetPath)\n", to: "" }],
    breaks: ["L2 newestGenerationArrives", "L3 askedForArrives"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "a place at the provider is not given back",
    changes: [
      {
        file: "src/volume/ProviderBudget.ts",
        from: "        gate.state = Budget.ended(gate.state, { kind, epoch })\n",
        to: ""
      }
    ],
    breaks: ["L1 everyVolumeIsPublished", "L2 newestGenerationArrives", "L3 askedForArrives"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "locks of volumes are kept for ever",
    changes: [
      { file: "src/volume/VolumeTable.ts", from: "      if (lock.users === 0) locks.delete(targetPath)\n", to: "" }
    ],
    breaks: ["S15 nothingIsRemembered", "L2 newestGenerationArrives", "L3 askedForArrives"],
    scenario: "node",
    hours: 0.3,
    seed: 1
  },
  {
    name: "labels of others are lost with a pod status",
    changes: [
      {
        file: "src/volume/PodStatus.ts",
        from: "labels: { ...labels, [NODE_LABEL]: label }",
        to: "labels: { [NODE_LABEL]: label }"
      }
    ],
    breaks: ["S7 labelsOfOthersStay"],
    scenario: "node",
    hours: 0.3,
    seed: 4
  },
  {
    name: "the owner of a pod status stays as it was",
    changes: [
      { file: "src/volume/PodStatus.ts", from: "    sameOwners(existing, wanted) &&\n", to: "" },
      {
        file: "src/volume/PodStatus.ts",
        from: "        ownerReferences\n      },\n      status: wanted.status",
        to: "        ownerReferences: existing.metadata.ownerReferences ?? ownerReferences\n      },\n      status: wanted.status"
      }
    ],
    breaks: ["S13 podStatusNamesItsVolume"],
    scenario: "node",
    hours: 0.3,
    seed: 1
  },
  {
    name: "of several volumes the oldest content counts",
    changes: [
      { file: "src/sync/SecretSync.ts", from: "order(b.fetched, a.fetched)\n", to: "order(a.fetched, b.fetched)\n" }
    ],
    breaks: ["L4 secretFollows"],
    scenario: "node",
    hours: 0.3,
    seed: 1
  },
  {
    name: "a key whose file is gone stays in the Secret",
    changes: [
      {
        file: "src/sync/SecretPlan.ts",
        from: "  for (const key of Object.keys(live)) if (!wanted.has(key)) patch[key] = null\n  return patch\n}\n\nconst isEmpty",
        to: "  return patch\n}\n\nconst isEmpty"
      }
    ],
    breaks: ["S8 secretIsOneGeneration"],
    scenario: "node",
    hours: 0.3,
    seed: 1
  },
  {
    name: "when content was fetched does not matter to its Secret",
    changes: [
      {
        file: "src/sync/SecretSync.ts",
        from: '          targetPath,\n          fetched,\n          object.metadata.uid ?? "",',
        to: '          targetPath,\n          object.metadata.uid ?? "",'
      }
    ],
    breaks: ["L4 secretFollows"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "nobody owns the Secret of a pod without owners",
    changes: [
      {
        file: "src/sync/OwnerReferences.ts",
        from: '  return [{ apiVersion: "secrets-store.csi.x-k8s.io/v1", kind: "SecretProviderClassPodStatus", name, uid }]',
        to: "  return name === uid ? [] : []"
      }
    ],
    breaks: ["S9 usersOwnTheirSecret"],
    scenario: "node",
    hours: 0.3,
    seed: 1
  },
  {
    name: "a Secret of somebody else is taken over",
    changes: [
      {
        file: "src/sync/SecretPlan.ts",
        from: '  if (!isOurs(live) && !wanted.adopts) return { _tag: "Foreign" }\n',
        to: ""
      }
    ],
    breaks: ["S7 secretsOfOthersStay"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "older content takes the place of newer content",
    changes: [
      {
        file: "src/sync/SecretPlan.ts",
        from: '  return trusts && (annotations[KEYS.fetched] ?? "") > fetched\n',
        to: '  return trusts && (annotations[KEYS.fetched] ?? "") < fetched\n'
      }
    ],
    breaks: ["L4 secretFollows"],
    scenario: "node",
    hours: 0.3,
    seed: 1
  },
  {
    name: "B4: the CSIDriver is deleted and created for every change",
    changes: [
      {
        file: "src/operator/CSIDriver.ts",
        from: "  if (isImmutableChange(has, wanted)) {",
        to: "  if (isImmutableChange(has, wanted) || FIELDS.some((field) => !isSameField(has[field], wanted[field]))) {"
      }
    ],
    breaks: ["S16 csiDriverStays"],
    scenario: "operator",
    hours: 0.5,
    seed: 9
  },
  {
    name: "B5: audiences that an administrator has set are read from the CSIDriver alone",
    changes: [
      {
        file: "src/operator/CSIDriver.ts",
        from: "  if (live === undefined) return last\n",
        to: "  if (live === undefined) return []\n"
      },
      {
        file: "src/operator/CSIDriver.ts",
        from: "tokens.length === 0 && remembered !== undefined && remembered.uid !== live.metadata.uid ? last : tokens",
        to: "tokens"
      }
    ],
    breaks: ["S16 audiencesNeverShrink", "S16 audiencesComeBack", "L9 sameAsUndisturbed"],
    scenario: "operator",
    hours: 0.5,
    seed: 12
  },
  {
    name: "the finalizer is forgotten",
    changes: [
      {
        file: "src/operator/Plan.ts",
        from: "finalizers: [...finalizersOf(it), finalizer]",
        to: 'finalizers: [...finalizersOf(it)].concat(finalizer === "" ? [finalizer] : [])'
      }
    ],
    breaks: ["Q1 finalizerGoesFirst", "L9 comesToRest"],
    scenario: "operator",
    hours: 0.5,
    seed: 1
  },
  {
    name: "the finalizer goes while objects are left",
    changes: [
      {
        file: "src/operator/Plan.ts",
        from: "  if (rest.length > 0) {\n    return {",
        to: "  if (rest.length > 3) {\n    return {"
      }
    ],
    breaks: ["Q1 finalizerGoesLast", "L5 nothingIsLeft", "S17 nothingIsLeft"],
    scenario: "operator",
    hours: 0.5,
    seed: 12
  },
  {
    name: "roles and service accounts stay when the driver is removed",
    changes: [{ file: "src/operator/Plan.ts", from: '  "ClusterRole",\n  "ServiceAccount",\n', to: "" }],
    breaks: ["Q1 finalizerGoesLast"],
    scenario: "operator",
    hours: 0.5,
    seed: 1
  },
  {
    name: "Unmanaged is managed",
    changes: [
      {
        file: "src/operator/Management.ts",
        from: 'if (value === "Managed") return isDeleting',
        to: 'if (value === "Managed" || value === "Unmanaged") return isDeleting'
      }
    ],
    breaks: ["S17 actsOnWhatIsWanted"],
    scenario: "operator",
    hours: 0.5,
    seed: 1
  },
  {
    name: "a removal does not wait for the pods that use volumes",
    changes: [
      {
        file: "src/operator/Plan.ts",
        from: "if (isWaiting && observed.consumers.length > 0 &&",
        to: "if (isWaiting && observed.consumers.length < 0 &&"
      }
    ],
    breaks: ["Q7 driverOutlivesVolumes", "Q7 removalWaits"],
    scenario: "operator",
    hours: 0.5,
    seed: 1
  },
  {
    name: "the driver's rights go before its pods",
    changes: [
      {
        file: "src/operator/Plan.ts",
        from: "  if (isWaiting && observed.driverPods.length > 0) {",
        to: "  if (isWaiting && observed.driverPods.length < 0) {"
      }
    ],
    breaks: ["Q1 driverGoesFirst"],
    scenario: "operator",
    hours: 0.5,
    seed: 1
  },
  {
    name: "the DaemonSet does not wait for what its pods need",
    changes: [
      {
        file: "src/operator/Plan.ts",
        from: 'const first = change._tag === "Create" ? [...before, ...statics.map(({ key }) => key)] : before',
        to: "const first = before"
      },
      {
        file: "src/operator/Plan.ts",
        from: '    if (change._tag === "Create" && staticErrors.length > 0) return []\n',
        to: ""
      }
    ],
    breaks: ["Q42 rightsComeBeforePods"],
    scenario: "operator",
    hours: 0.5,
    seed: 25
  },
  {
    name: "labels of others are taken off operand objects",
    changes: [
      {
        file: "src/operator/Merge.ts",
        from: "const merged = new Map(Object.entries(live ?? {}))",
        to: "const merged = new Map(Object.entries(live === undefined ? {} : {}))"
      }
    ],
    breaks: ["S7 labelsOfOthersStay"],
    scenario: "operator",
    hours: 0.5,
    seed: 2
  },
  {
    name: "a Lease of somebody else is taken whenever it is seen",
    changes: [
      {
        file: "src/reconciler/LeaseRecord.ts",
        from: 'return expiresInMillis > 0 ? { _tag: "Wait"',
        to: 'return expiresInMillis > 600_000 ? { _tag: "Wait"'
      }
    ],
    breaks: ["S18 writesAreFenced"],
    scenario: "operator",
    hours: 0.5,
    seed: 3
  },
  {
    name: "a DaemonSet that somebody has edited stays edited",
    changes: [
      {
        file: "src/operator/DaemonSet.ts",
        from: "const isSame = isSameSpec(chosen, live) || (hashes &&",
        to: "const isSame = isSameSpec(chosen, live) || isSameSpec(live, live) || (hashes &&"
      }
    ],
    breaks: ["L9 sameAsUndisturbed", "L9 comesToRest"],
    scenario: "operator",
    hours: 0.5,
    seed: 2
  },
  {
    name: "a failed action counts as done",
    changes: [
      {
        file: "src/operator/Perform.ts",
        from: "    if (Result.isFailure(result)) {\n      undone.add(action.key)\n",
        to: "    if (Result.isFailure(result)) {\n"
      }
    ],
    breaks: ["Q42 rightsComeBeforePods", "Q1 finalizerGoesFirst"],
    scenario: "operator",
    hours: 0.5,
    seed: 16
  },
  {
    name: "namespaces that ask for Secrets get no binding",
    changes: [
      { file: "src/operator/Desired.ts", from: "return [...syncNamespaces]", to: "return [...syncNamespaces].slice(1)" }
    ],
    breaks: ["Q29 rightsFollowClasses", "L9 sameAsUndisturbed", "B7 rightsFollowClasses"],
    scenario: "operator",
    hours: 0.5,
    seed: 5
  },
  {
    name: "a watch whose version is gone is not listed anew",
    changes: [
      { file: "src/reconciler/Reflector.ts", from: "    if (failure.isGone) state.version = undefined\n", to: "" }
    ],
    breaks: [
      ...["S9 usedSecretStays", "S9 usersOwnTheirSecret", "S13 podStatusNamesItsVolume"],
      ...["L3 askedForArrives", "L4 secretFollows", "L5 nothingIsLeft"]
    ],
    scenario: "node",
    hours: 0.3,
    seed: 70
  },
  {
    name: "a reconcile that fails is not tried again",
    changes: [
      {
        file: "src/reconciler/QueuedKey.ts",
        from: "const returnMillis = nowMillis + backoffMillis(backoff, waits, random)",
        to: "const returnMillis = backoffMillis(backoff, waits, random) === 0 ? nowMillis : key.returnMillis"
      },
      {
        file: "src/reconciler/Outage.ts",
        from: "      queue.addAfter(first, EVERY_MILLIS)\n",
        to: "      queue.addAfter(first, Number.POSITIVE_INFINITY)\n"
      },
      {
        file: "src/reconciler/Outage.ts",
        from: "queue.addAfter(key, returnMillis - now)",
        to: "queue.addAfter(key, Number.POSITIVE_INFINITY)"
      }
    ],
    breaks: ["L4 secretFollows", "L5 nothingIsLeft"],
    scenario: "node",
    hours: 0.3,
    seed: 2
  },
  {
    name: "what had no answer comes back in its own time, however soon others are answered",
    changes: [
      {
        file: "src/reconciler/Outage.ts",
        from: "      queue.addAfter(first, EVERY_MILLIS)\n",
        to: "      queue.addAfter(first, Number.POSITIVE_INFINITY)\n"
      },
      {
        file: "src/reconciler/Outage.ts",
        from: "queue.addAfter(key, returnMillis - now)",
        to: "queue.addAfter(key, Number.POSITIVE_INFINITY)"
      }
    ],
    breaks: ["L5 nothingIsLeft"],
    scenario: "node",
    hours: 0.3,
    seed: 1
  },
  {
    name: "a reconcile that is to come back does not",
    changes: [
      {
        file: "src/reconciler/QueuedKey.ts",
        from: "const returnMillis = result.millis > 0 ? nowMillis + result.millis : nowMillis",
        to: "const returnMillis = key.returnMillis + 0 * result.millis"
      }
    ],
    breaks: ["L5 nothingIsLeft"],
    scenario: "node",
    hours: 0.3,
    seed: 3
  },
  {
    name: "refreshes come before first mounts",
    changes: [
      {
        file: "src/volume/Budget.ts",
        from: "{ Mount: 0, Asked: 1, Due: 2 }",
        to: "{ Mount: 2, Asked: 1, Due: 0 }"
      }
    ],
    breaks: ["L7 firstMountsGoFirst"],
    scenario: "node",
    hours: 0.3,
    seed: 1
  },
  {
    name: "a volume whose provider throttles waits twice as long each time",
    changes: [
      {
        file: "src/volume/Rotation.ts",
        from: "failed.isThrottled ? schedule.failures : schedule.failures + 1",
        to: "schedule.failures + 1"
      },
      { file: "src/volume/Rotation.ts", from: "(failed.isThrottled ? 0 : failures - 1)", to: "(failures - 1)" }
    ],
    breaks: ["L7 backlogDrains"],
    scenario: "node",
    hours: 0.1,
    seed: 90
  },
  {
    name: "a class that was wrong stays so until the driver starts again",
    changes: [
      {
        file: "src/volume/VolumeContent.ts",
        from: "export const readClass = ",
        to: "const wrong = new Map()\nexport const readClass = "
      },
      {
        file: "src/volume/VolumeContent.ts",
        from: "  const result = usable(pod.namespace, name, found)\n",
        to: '  const result = wrong.get(`${pod.namespace}/${name}`) ?? usable(pod.namespace, name, found)\n  if ("_tag" in result) wrong.set(`${pod.namespace}/${name}`, result)\n'
      }
    ],
    breaks: ["L10 correctedClassesServe"],
    scenario: "node",
    hours: 0.3,
    seed: 1
  },
  {
    name: "a Secret whose class is wrong loses its users",
    changes: [
      {
        file: "src/sync/SecretSync.ts",
        from: "return patch === undefined ? Effect.void",
        to: "return patch !== null ? Effect.void"
      }
    ],
    breaks: ["S9 usedSecretStays"],
    scenario: "node",
    hours: 0.3,
    seed: 10
  }
]
