// Keys, certificate requests and PKCS#12, made in the page. Nothing here talks
// to the network: a private key enters a PKCS#12 or a PEM file that the person
// saves, and nothing else.
import * as asn1js from "asn1js";
import * as pkijs from "pkijs";

pkijs.setEngine("browser", new pkijs.CryptoEngine({ name: "browser", crypto: globalThis.crypto }));

const P256 = { name: "ECDSA", namedCurve: "P-256" };

// Work factors of the PKCS#12: PBKDF2 for what is encrypted, and the older
// derivation of RFC 7292 appendix B for the integrity code.
const PBKDF2_ROUNDS = 210_000;
const MAC_ROUNDS = 20_000;

const OID = {
  commonName: "2.5.4.3",
  extensionRequest: "1.2.840.113549.1.9.14",
  subjectAltName: "2.5.29.17",
  certBag: "1.2.840.113549.1.12.10.1.3",
  shroudedKeyBag: "1.2.840.113549.1.12.10.1.2",
  friendlyName: "1.2.840.113549.1.9.20",
  localKeyId: "1.2.840.113549.1.9.21",
};

// newKey returns a fresh ECDSA P-256 key pair.
export function newKey() {
  return crypto.subtle.generateKey(P256, true, ["sign", "verify"]);
}

// request returns a certificate request (PEM) for the key. Its subject and
// names are suggestions: the server decides what the certificate says.
export async function request(pair, commonName, names = []) {
  const csr = new pkijs.CertificationRequest();
  csr.version = 0;
  if (commonName) {
    csr.subject.typesAndValues.push(new pkijs.AttributeTypeAndValue({
      type: OID.commonName,
      value: new asn1js.Utf8String({ value: commonName }),
    }));
  }
  await csr.subjectPublicKeyInfo.importKey(pair.publicKey);
  csr.attributes = [];
  if (names.length > 0) {
    const san = new pkijs.GeneralNames({ names: names.map(generalName) });
    const extensions = new pkijs.Extensions({
      extensions: [new pkijs.Extension({
        extnID: OID.subjectAltName,
        critical: false,
        extnValue: san.toSchema().toBER(false),
      })],
    });
    csr.attributes.push(new pkijs.Attribute({ type: OID.extensionRequest, values: [extensions.toSchema()] }));
  }
  await csr.sign(pair.privateKey, "SHA-256");
  return pem("CERTIFICATE REQUEST", csr.toSchema().toBER(false));
}

// generalName returns a subject alternative name: an address if it reads as
// one, else a DNS name (RFC 5280, 4.2.1.6).
function generalName(name) {
  const bytes = addressBytes(name);
  return bytes
    ? new pkijs.GeneralName({ type: 7, value: new asn1js.OctetString({ valueHex: bytes.buffer }) })
    : new pkijs.GeneralName({ type: 2, value: name });
}

function addressBytes(name) {
  if (/^\d+\.\d+\.\d+\.\d+$/.test(name)) return Uint8Array.from(name.split("."), Number);
  if (!name.includes(":")) return null;
  const [head, tail] = name.split("::").map((part) => (part ? part.split(":") : []));
  const groups = tail ? [...head, ...Array(8 - head.length - tail.length).fill("0"), ...tail] : head;
  const bytes = new Uint8Array(16);
  groups.forEach((group, i) => new DataView(bytes.buffer).setUint16(2 * i, parseInt(group, 16)));
  return bytes;
}

// privateKeyPEM returns the key as PKCS#8 PEM, not encrypted.
export async function privateKeyPEM(pair) {
  return pem("PRIVATE KEY", await crypto.subtle.exportKey("pkcs8", pair.privateKey));
}

// pkcs12 returns the key and its chain (DER, the leaf first) as a PKCS#12 file
// under the passphrase: PBES2 with AES-256 and PBKDF2, an integrity code with
// SHA-256.
export async function pkcs12(pair, chain, passphrase, friendlyName) {
  const password = new TextEncoder().encode(passphrase).buffer;
  const keyInfo = new pkijs.PrivateKeyInfo({
    schema: asn1js.fromBER(await crypto.subtle.exportKey("pkcs8", pair.privateKey)).result,
  });
  const shrouded = new pkijs.PKCS8ShroudedKeyBag({ parsedValue: keyInfo });
  const encryption = {
    password,
    contentEncryptionAlgorithm: { name: "AES-CBC", length: 256 },
    hmacHashAlgorithm: "SHA-256",
    iterationCount: PBKDF2_ROUNDS,
  };
  await shrouded.makeInternalValues({ ...encryption });

  const keyId = await crypto.subtle.digest("SHA-1", chain[0]);
  const attributes = () => [
    new pkijs.Attribute({ type: OID.friendlyName, values: [new asn1js.BmpString({ value: friendlyName })] }),
    new pkijs.Attribute({ type: OID.localKeyId, values: [new asn1js.OctetString({ valueHex: keyId })] }),
  ];
  const certificates = chain.map((der, i) => new pkijs.SafeBag({
    bagId: OID.certBag,
    bagValue: new pkijs.CertBag({ parsedValue: pkijs.Certificate.fromBER(der) }),
    ...(i === 0 ? { bagAttributes: attributes() } : {}),
  }));

  const pfx = new pkijs.PFX({
    parsedValue: {
      integrityMode: 0,
      authenticatedSafe: new pkijs.AuthenticatedSafe({
        parsedValue: {
          safeContents: [
            { privacyMode: 1, value: new pkijs.SafeContents({ safeBags: certificates }) },
            {
              privacyMode: 0,
              value: new pkijs.SafeContents({
                safeBags: [new pkijs.SafeBag({ bagId: OID.shroudedKeyBag, bagValue: shrouded, bagAttributes: attributes() })],
              }),
            },
          ],
        },
      }),
    },
  });
  await pfx.parsedValue.authenticatedSafe.makeInternalValues({ safeContents: [{ ...encryption }, {}] });
  await pfx.makeInternalValues({
    password,
    iterations: MAC_ROUNDS,
    pbkdf2HashAlgorithm: "SHA-256",
    hmacHashAlgorithm: "SHA-256",
  });
  return new Uint8Array(pfx.toSchema().toBER(false));
}

// pem returns DER in the armour of RFC 7468.
export function pem(label, der) {
  const lines = base64(der).match(/.{1,64}/g).join("\n");
  return `-----BEGIN ${label}-----\n${lines}\n-----END ${label}-----\n`;
}

export function base64(bytes) {
  return btoa(Array.from(new Uint8Array(bytes), (b) => String.fromCharCode(b)).join(""));
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}
