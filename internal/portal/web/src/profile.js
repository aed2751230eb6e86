// profile returns an Apple configuration profile with the root and the PKCS#12,
// which stays encrypted: the system asks for the passphrase.
import { base64 } from "./keys.js";

export function profile(made, p12) {
  const id = `postern.${made.serial.slice(0, 16)}`;
  const payload = (type, part, name, extra, bytes) => `<dict>
<key>PayloadType</key><string>${type}</string>
<key>PayloadVersion</key><integer>1</integer>
<key>PayloadIdentifier</key><string>${id}.${part}</string>
<key>PayloadUUID</key><string>${crypto.randomUUID().toUpperCase()}</string>
<key>PayloadDisplayName</key><string>${escape(name)}</string>
${extra}<key>PayloadContent</key><data>${bytes}</data>
</dict>`;
  return `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0"><dict>
<key>PayloadType</key><string>Configuration</string>
<key>PayloadVersion</key><integer>1</integer>
<key>PayloadIdentifier</key><string>${id}</string>
<key>PayloadUUID</key><string>${crypto.randomUUID().toUpperCase()}</string>
<key>PayloadDisplayName</key><string>${escape(`${made.person} at ${made.site}`)}</string>
<key>PayloadContent</key><array>
${payload("com.apple.security.root", "root", `Root of ${made.site}`, "", made.root)}
${payload("com.apple.security.pkcs12", "identity", `${made.person} ${made.label}`, "<key>PayloadCertificateFileName</key><string>identity.p12</string>\n", base64(p12))}
</array></dict></plist>
`;
}

function escape(text) {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}
