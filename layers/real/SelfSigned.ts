/**
 * A certificate of our own, for where nobody issued one: a CA that is thrown away, and a certificate for "localhost" that
 * it signed. Only to be imported when it is needed: node-forge takes 20 ms and 1.5 MiB.
 *
 * @source reference/operator.md 1.5, Q31
 */
import { generateKeyPair, randomBytes } from "node:crypto"
import { promisify } from "node:util"
import forge from "node-forge"

export interface SelfSigned {
  /** With that of the CA, in PEM. */
  readonly cert: string
  readonly key: string
  readonly untilMillis: number
}

const DAYS = 30
const DAY_MILLIS = 86_400_000
/** Clocks differ. */
const EARLIER_MILLIS = 60_000

/**
 * By itself node-forge writes a PrintableString, in which there may be no "@". Go refuses a certificate that has one all
 * the same, and so do the probes of the kubelet.
 */
const UTF8_STRING: number = forge.asn1.Type.UTF8

const newKeys = async () => {
  // Ten times as fast as node-forge, and not on the only thread.
  const { privateKey, publicKey } = await promisify(generateKeyPair)("rsa", {
    modulusLength: 2048,
    publicKeyEncoding: { type: "spki", format: "pem" },
    privateKeyEncoding: { type: "pkcs8", format: "pem" }
  })
  return { pem: privateKey, own: forge.pki.privateKeyFromPem(privateKey), open: forge.pki.publicKeyFromPem(publicKey) }
}

/** @shape (now, milliseconds since the epoch) -> a new certificate, good for 30 days */
export const make = async (nowMillis: number): Promise<SelfSigned> => {
  const untilMillis = nowMillis + DAYS * DAY_MILLIS
  const signer = await newKeys()
  const leaf = await newKeys()
  const issuer = [
    {
      name: "commonName",
      value: `secrets-store-csi-driver-operator-signer@${Math.floor(nowMillis / 1_000)}`,
      valueTagClass: UTF8_STRING
    }
  ]
  const sign = (
    publicKey: forge.pki.rsa.PublicKey,
    subject: ReadonlyArray<forge.pki.CertificateField>,
    extensions: ReadonlyArray<unknown>
  ): string => {
    const certificate = forge.pki.createCertificate()
    certificate.publicKey = publicKey
    // Positive, whatever the bytes are.
    certificate.serialNumber = `01${randomBytes(15).toString("hex")}`
    certificate.validity.notBefore = new Date(nowMillis - EARLIER_MILLIS)
    certificate.validity.notAfter = new Date(untilMillis)
    certificate.setSubject([...subject])
    certificate.setIssuer(issuer)
    certificate.setExtensions([...extensions])
    certificate.sign(signer.own, forge.md.sha256.create())
    return forge.pki.certificateToPem(certificate)
  }
  const ca = sign(signer.open, issuer, [
    { name: "basicConstraints", cA: true, critical: true },
    { name: "keyUsage", keyCertSign: true, digitalSignature: true, keyEncipherment: true, critical: true }
  ])
  const own = sign(
    leaf.open,
    [{ name: "commonName", value: "localhost" }],
    [
      { name: "basicConstraints", cA: false, critical: true },
      { name: "keyUsage", digitalSignature: true, keyEncipherment: true, critical: true },
      { name: "extKeyUsage", serverAuth: true },
      { name: "subjectAltName", altNames: [{ type: 2, value: "localhost" }] }
    ]
  )
  return { cert: own + ca, key: leaf.pem, untilMillis }
}
