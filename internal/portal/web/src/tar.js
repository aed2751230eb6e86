// tar returns files ({path, mode, body}) as a POSIX ustar archive (IEEE Std
// 1003.1, pax, "ustar Interchange Format"). Paths are at most 100 bytes long.
export function tar(files) {
  const encoder = new TextEncoder();
  const now = Math.floor(Date.now() / 1000);
  const parts = [];
  for (const { path, mode, body } of files) {
    const content = encoder.encode(body);
    parts.push(header(encoder.encode(path), mode, content.length, now), content, new Uint8Array((512 - (content.length % 512)) % 512));
  }
  parts.push(new Uint8Array(1024));
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function header(path, mode, size, time) {
  if (path.length > 100) throw new Error("path too long for an archive");
  const block = new Uint8Array(512);
  const text = (at, value) => block.set(new TextEncoder().encode(value), at);
  const octal = (at, width, value) => text(at, value.toString(8).padStart(width - 1, "0"));
  block.set(path, 0);
  octal(100, 8, mode);
  octal(108, 8, 0);
  octal(116, 8, 0);
  octal(124, 12, size);
  octal(136, 12, time);
  text(148, "        ");
  text(156, "0");
  text(257, "ustar\x0000");
  octal(148, 7, block.reduce((sum, byte) => sum + byte, 0));
  block[154] = 0;
  block[155] = 0x20;
  return block;
}
