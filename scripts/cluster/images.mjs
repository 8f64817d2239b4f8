// The images of the cluster tests, without a registry: ours from our own Dockerfile, on bases that stand in under their
// upstream names and are put together from Debian's packages. Everything is kept in the user's cache, under a name that
// says what it was made of.
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { cache } from "../kubernetes/binaries.mjs"

/** Of how all this is done; what was built otherwise is built again. */
const RECIPE = "3"
const SUITE = "bookworm"
/** What the images' Node needs of a system. */
const RUNTIME = ["base-files", "ca-certificates", "libc6", "libgcc-s1", "libstdc++6", "netbase", "tzdata"]
/** And what starts a build. */
const BUILD = [...RUNTIME, "coreutils", "dash", "libatomic1"]
/** What Node needs besides, of the target's platform. */
const LIBRARIES = ["libatomic1"]
const BUILD_BASE = "docker.io/library/node:26-slim"
const RUNTIME_BASE = "gcr.io/distroless/cc-debian12:latest"
const NPM = "11"
const VERSIONS = ["1.0.0", "1.0.1"]
const REPOSITORY = "localhost/secrets-store-csi"
/** As images name processors. */
const ARCHITECTURES = ["amd64", "arm64"]
const HERE = process.arch === "x64" ? "amd64" : process.arch

const hashOf = (...parts) => {
  const hash = createHash("sha256")
  for (const part of parts) hash.update(part).update("\0")
  return hash.digest("hex").slice(0, 16)
}

/** Every file below, in a settled order. */
const filesBelow = (path) =>
  statSync(path).isDirectory()
    ? readdirSync(path)
        .sort()
        .flatMap((name) => filesBelow(join(path, name)))
    : [path]

/** What `.dockerignore` lets into a build, and the recipe itself. */
const contextHash = (root) => {
  const allowed = readFileSync(join(root, ".dockerignore"), "utf8")
    .split("\n")
    .filter((line) => line.startsWith("!"))
    .map((line) => join(root, line.slice(1)))
  const files = [join(root, "Dockerfile"), ...allowed.flatMap(filesBelow)]
  return hashOf(...files.flatMap((file) => [file.slice(root.length), readFileSync(file)]))
}

class ImageFailed extends Error {}

/**
 * @param root      of the checkout
 * @param directory of temporary files, which goes with the run
 * @param programs  bundled programs of the tests, by the name of their image
 * @returns archives of images: for this machine with all that its node needs, and for other platforms with ours; or the
 *          problem
 */
const clusterImages = ({ root, directory, say, programs }) => {
  const storage = join(cache, "images", "storage")
  const scratch = join(directory, "scratch")
  const store = ["--root", storage, "--runroot", join(directory, "buildah")]
  mkdirSync(storage, { recursive: true })
  mkdirSync(scratch, { recursive: true })

  const run = (program, args, options = {}) => {
    const { error, status, stderr, stdout } = spawnSync(program, args, {
      encoding: "utf8",
      maxBuffer: 64 * 1024 * 1024,
      // buildah keeps the caches of builds below the temporary directory.
      env: { ...process.env, TMPDIR: scratch, npm_config_cache: join(cache, "npm"), npm_config_logs_max: "0" },
      cwd: options.cwd ?? scratch
    })
    if (error !== undefined) throw new ImageFailed(`${program}: ${error.message}`)
    if (status !== 0)
      throw new ImageFailed(`${program} ${args.join(" ")}:\n${`${stdout}${stderr}`.trim().slice(-4_000)}`)
    return stdout.trim()
  }
  const buildah = (...args) => run("buildah", [...store, ...args])
  const has = (image) => {
    const { status } = spawnSync("buildah", [...store, "inspect", "--type", "image", image])
    return status === 0
  }

  const fileSystem = (name, packages, architecture) => {
    const file = join(scratch, `${name}.tar`)
    run("mmdebstrap", [
      ...["--quiet", "--variant=extract", "--mode=root", `--architectures=${architecture}`],
      ...[`--include=${packages.join(",")}`, SUITE, file]
    ])
    return file
  }

  const baseTagOf = ({ architecture, image, madeOf = [], packages }) =>
    `${image.replace(/:[^:]*$/u, "")}:${architecture}-${hashOf(RECIPE, SUITE, ...madeOf, ...packages)}`

  /** @returns its ID: of an image that is called by its name, buildah asks that it be of the target's platform */
  const base = (it) => {
    const { architecture, files = () => [], image, packages } = it
    const tag = baseTagOf(it)
    if (!has(tag)) {
      say(`putting ${image} together for ${architecture}`)
      const container = buildah("from", "--arch", architecture, "scratch")
      buildah("add", "--quiet", container, fileSystem("base", packages, architecture), "/")
      const users = join(scratch, "passwd")
      writeFileSync(users, "root:x:0:0:root:/root:/bin/sh\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")
      for (const { from, to } of [{ from: users, to: "/etc/passwd" }, ...files()])
        buildah("copy", "--quiet", container, from, to)
      buildah("config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
      buildah("commit", "--quiet", "--rm", container, tag)
    }
    return buildah("images", "--quiet", "--no-trunc", tag).replace(/^sha256:/u, "")
  }

  const nodePackage = () => join(root, `node_modules/node-linux-${process.arch}`)
  const nodeVersion = JSON.parse(readFileSync(join(nodePackage(), "package.json"), "utf8")).version
  const npmFiles = () => {
    run("npm", ["pack", "--silent", `npm@${NPM}`])
    const packed = readdirSync(scratch).find((name) => /^npm-.*\.tgz$/u.test(name))
    mkdirSync(join(scratch, "npm"))
    run("tar", ["xzf", packed, "-C", "npm", "--strip-components=1"])
    // A launcher, as an installed npm has one.
    const launcher = join(scratch, "npm-launcher")
    writeFileSync(launcher, '#!/bin/sh\nexec node /usr/local/lib/node_modules/npm/bin/npm-cli.js "$@"\n')
    chmodSync(launcher, 0o755)
    return [
      { from: join(nodePackage(), "bin/node"), to: "/usr/local/bin/node" },
      { from: join(scratch, "npm"), to: "/usr/local/lib/node_modules/npm" },
      { from: launcher, to: "/usr/local/bin/npm" }
    ]
  }

  /** npm inside asks where npm outside asks, and trusts what it trusts. */
  const npmSettings = () => {
    const settings = ["fetch-retries=1", "update-notifier=false"]
    const registry = run("npm", ["config", "get", "registry"], { cwd: root })
    settings.push(`registry=${registry}`)
    const authorities = "/etc/ssl/certs/ca-certificates.crt"
    const volumes = []
    if (existsSync(authorities)) {
      settings.push(`cafile=${authorities}`)
      volumes.push("--volume", `${authorities}:${authorities}:ro`)
    }
    const file = join(scratch, "npmrc")
    writeFileSync(file, `${settings.join("\n")}\n`)
    return [...volumes, "--volume", `${file}:/usr/local/etc/npmrc:ro`]
  }

  const basesFor = (architecture) => ({
    BUILD_BASE: { image: BUILD_BASE, packages: BUILD, architecture: HERE, files: npmFiles, madeOf: [nodeVersion, NPM] },
    LIBRARIES_BASE: { image: "localhost/libraries:1", packages: LIBRARIES, architecture },
    RUNTIME_BASE: { image: RUNTIME_BASE, packages: RUNTIME, architecture }
  })

  const build = (target, version, image, architecture = HERE) => {
    buildah(
      ...["bud", "--quiet", "--isolation", "chroot", "--network", "host", "--pull-never", "--layers"],
      ...npmSettings(),
      ...Object.entries(basesFor(architecture)).flatMap(([name, it]) => ["--build-arg", `${name}=${base(it)}`]),
      // Docker sets it by itself.
      ...["--build-arg", `TARGETARCH=${architecture}`, "--platform", `linux/${architecture}`],
      ...["--build-arg", `BUILD_VERSION=${version}`, "--target", target, "--tag", image, root]
    )
  }

  /** An image of few files: `lines` is its Dockerfile. */
  const buildSmall = (image, lines, files) => {
    const context = mkdtempSync(join(scratch, "context-"))
    for (const [name, path] of Object.entries(files)) copyFileSync(path, join(context, name))
    writeFileSync(join(context, "Dockerfile"), `${lines.join("\n")}\n`)
    buildah("bud", "--quiet", "--isolation", "chroot", "--pull-never", "--tag", image, context)
  }

  const ours = (target, version, architecture = HERE) => ({
    image: `${REPOSITORY}/${target}:${version}${architecture === HERE ? "" : `-${architecture}`}`,
    key: hashOf(RECIPE, contextHash(root), nodeVersion, SUITE),
    make: (tag) => build(target, version, tag, architecture)
  })
  const small = (image, lines, files) => ({
    image,
    key: hashOf(RECIPE, ...lines, ...Object.values(files).map((path) => readFileSync(path))),
    make: (tag) => buildSmall(tag, lines, files)
  })
  const tagOf = ({ image, key }) => `${image}-${key}`

  const packagesTagOf = (architecture) => `${REPOSITORY}/packages:${architecture}`

  /** All in one archive, so that what they have in common is in there once, and is unpacked once. */
  const archive = (images, file, architecture) => {
    // Tagged, so that what is built of the lock file alone outlives the builds.
    build("packages", "", packagesTagOf(architecture), architecture)
    const layout = mkdtempSync(join(scratch, "layout-"))
    for (const it of images) {
      const tag = tagOf(it)
      if (!has(tag)) {
        say(`building ${it.image}`)
        it.make(tag)
      }
      buildah("push", "--quiet", "--disable-compression", tag, `oci:${layout}:${it.image}`)
    }
    // The name by which containerd takes an image out of an archive.
    const index = JSON.parse(readFileSync(join(layout, "index.json"), "utf8"))
    for (const { annotations } of index.manifests)
      annotations["io.containerd.image.name"] = annotations["org.opencontainers.image.ref.name"]
    writeFileSync(join(layout, "index.json"), JSON.stringify(index))
    run("tar", ["--create", "--file", `${file}.part`, "--directory", layout, "."])
    renameSync(`${file}.part`, file)
  }

  /** What older checkouts were built into is not needed again. */
  const removeOthers = (files, tags) => {
    for (const name of readdirSync(join(cache, "images"))) {
      const path = join(cache, "images", name)
      if (path !== storage && !files.includes(path)) rmSync(path, { recursive: true, force: true })
    }
    // Of builds that were cut off.
    buildah("rm", "--all")
    const bases = ARCHITECTURES.flatMap((it) => Object.values(basesFor(it)).map(baseTagOf))
    const wanted = [...tags, ...bases, ...ARCHITECTURES.map(packagesTagOf)]
    const old = buildah("images", "--format", "{{.Name}}:{{.Tag}}")
      .split("\n")
      .filter((tag) => tag !== "" && !tag.startsWith("<none>") && !wanted.includes(tag))
    if (old.length > 0) buildah("rmi", "--force", ...old)
    buildah("rmi", "--prune", "--force")
  }

  try {
    const [current, next] = VERSIONS
    const driver = ours("driver", current)
    const busybox = "/bin/busybox"
    const applets = ["FROM scratch", "COPY busybox /bin/busybox", 'RUN ["/bin/busybox", "--install", "-s", "/bin"]']
    const pause = ["FROM scratch", "COPY busybox /busybox", 'ENTRYPOINT ["/busybox", "sleep", "2147483647"]']
    const images = [
      ...[driver, ours("driver", next), ours("operator", current)],
      small("localhost/busybox:1", [...applets, 'CMD ["/bin/sh"]'], { busybox }),
      small("localhost/pause:1", pause, { busybox }),
      ...Object.entries(programs).map(([name, path]) => {
        const lines = [`FROM ${tagOf(driver)}`, "COPY program.cjs /app/program.cjs"]
        const entry = 'ENTRYPOINT ["/usr/bin/node", "/app/program.cjs"]'
        return small(`localhost/${name}:1`, [...lines, entry], { "program.cjs": path })
      })
    ]
    // Not run here: that they can be built, and what is in them, is all that is looked at.
    const foreign = ARCHITECTURES.filter((architecture) => architecture !== HERE).map((architecture) => ({
      architecture,
      images: [ours("driver", current, architecture), ours("operator", current, architecture)]
    }))
    const fileOf = (name, its) => join(cache, "images", `${name}-${hashOf(...its.map(tagOf))}.tar`)
    const archives = [{ name: "cluster", architecture: HERE, images }]
      .concat(foreign.map((it) => ({ ...it, name: it.architecture })))
      .map((it) => ({ ...it, file: fileOf(it.name, it.images) }))
    const missing = archives.filter(({ file }) => !existsSync(file))
    for (const it of missing) archive(it.images, it.file, it.architecture)
    if (missing.length > 0) {
      const files = archives.map(({ file }) => file)
      const tags = archives.flatMap((it) => it.images.map(tagOf))
      removeOthers(files, tags)
    }
    return { archives: archives.map(({ architecture, file }) => ({ architecture, file })) }
  } catch (error) {
    if (error instanceof ImageFailed) return { problem: error.message }
    throw error
  }
}

// As a program: what is asked for and what became of it are in files, so that it can run in a mount namespace of its own.
if (import.meta.main) {
  const [asked, answered] = process.argv.slice(2)
  const say = (line) => process.stderr.write(`cluster: ${line}\n`)
  writeFileSync(answered, JSON.stringify(clusterImages({ ...JSON.parse(readFileSync(asked, "utf8")), say })))
}
