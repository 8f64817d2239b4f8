/**
 * What the content of a mounted file is, as a port: certificates, private keys, PKCS#12 and YAML. Reading them takes
 * node:crypto and libraries, which `src` does not know; the libraries are loaded when the first such file is met.
 *
 * Nothing of the content is in a failure. Nothing here waits for the world.
 */
import { Context, type Effect, type Redacted } from "effect"
import type { ContentInvalid } from "../../schemas/errors/ContentInvalid.ts"

/** What the driver has to know about a certificate. */
export interface CertificateFacts {
  /** Its basic constraints say CA. */
  readonly isCa: boolean
  /** Issuer and subject are the same. */
  readonly isSelfIssued: boolean
}

/** A certificate and the headers of its PEM block, one character per byte. */
export interface Certificate {
  readonly der: Uint8Array
  readonly headers: ReadonlyArray<readonly [name: string, value: string]>
}

export interface Pkcs12 {
  /** In the order of the file. Headers are the bag's attributes. */
  readonly certificates: ReadonlyArray<Certificate>
  /** DER of the last private key; absent: it holds none. */
  readonly privateKey?: Redacted.Redacted<Uint8Array>
}

export class FileFormats extends Context.Service<
  FileFormats,
  {
    readonly certificate: (der: Uint8Array) => Effect.Effect<CertificateFacts, ContentInvalid>
    /**
     * An unencrypted private key as PEM: RSA as PKCS#1, EC as SEC 1, every other kind as PKCS#8.
     *
     * @param label the PEM label that it came with; "PRIVATE KEY" when it came without
     */
    readonly privateKey: (
      der: Redacted.Redacted<Uint8Array>,
      label: string
    ) => Effect.Effect<Redacted.Redacted<string>, ContentInvalid>
    /** Whether the certificate is of this key, a PEM text that `privateKey` gave. */
    readonly belongsTo: (certificate: Uint8Array, privateKey: Redacted.Redacted<string>) => Effect.Effect<boolean>
    /** PKCS#12 with the empty password, in both of its encodings. */
    readonly pkcs12: (file: Redacted.Redacted<Uint8Array>) => Effect.Effect<Pkcs12, ContentInvalid>
    /** As JSON would have it, but numbers are texts as they are spelled. */
    readonly yaml: (text: Redacted.Redacted<string>) => Effect.Effect<Redacted.Redacted<unknown>, ContentInvalid>
  }
>()("secrets-store/ports/FileFormats") {}
