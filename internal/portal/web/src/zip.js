// zip returns files ({path, mode, body}) as a zip archive (PKWARE's APPNOTE
// 6.3.10, 4.3), not compressed: each file's header and content, then the
// directory of all, then its end.
export function zip(files) {
  const encoder = new TextEncoder();
  const parts = [];
  const directory = [];
  let at = 0;
  for (const { path, mode, body } of files) {
    const name = encoder.encode(path);
    const content = encoder.encode(body);
    const common = [2, 20, 2, 0x0800, 2, 0, 4, dosTime(new Date()), 4, crc32(content), 4, content.length, 4, content.length, 2, name.length, 2, 0];
    const local = fields(4, 0x04034b50, ...common);
    directory.push(fields(4, 0x02014b50, 2, 0x0314, ...common, 2, 0, 2, 0, 2, 0, 4, (0o100000 | mode) * 0x10000, 4, at), name);
    parts.push(local, name, content);
    at += local.length + name.length + content.length;
  }
  const size = directory.reduce((sum, block) => sum + block.length, 0);
  const end = fields(4, 0x06054b50, 2, 0, 2, 0, 2, files.length, 2, files.length, 4, size, 4, at, 2, 0);
  return new Blob([...parts, ...directory, end]);
}

// fields returns numbers, each after its width in bytes, little end first.
function fields(...pairs) {
  const bytes = [];
  for (let i = 0; i < pairs.length; i += 2) {
    for (let n = 0; n < pairs[i]; n++) bytes.push((pairs[i + 1] / 2 ** (8 * n)) & 0xff);
  }
  return Uint8Array.from(bytes);
}

// dosTime returns a time as MS-DOS writes it: date above time, in two seconds.
function dosTime(t) {
  const date = ((t.getFullYear() - 1980) << 9) | ((t.getMonth() + 1) << 5) | t.getDate();
  return date * 0x10000 + ((t.getHours() << 11) | (t.getMinutes() << 5) | (t.getSeconds() >> 1));
}

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}
