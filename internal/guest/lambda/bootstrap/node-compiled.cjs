'use strict';
// Compiled code of the function. It is loaded where the host has some, or a place for it.

const fs = require('fs');
const os = require('os');
const path = require('path');
const { enableCompileCache, flushCompileCache } = require('module');

const most = 16 << 20; // bytes, as the host takes

// It is given the folder with compiled code, or "keep", and gives what collects the compiled code then, as the host wants it, or null.
module.exports = function compiled(from) {
  const env = process.env;
  if (!flushCompileCache || env.NODE_COMPILE_CACHE !== undefined || env.NODE_DISABLE_COMPILE_CACHE !== undefined) return null;
  const keep = from === 'keep';
  let dir = from;
  try {
    if (keep) dir = fs.mkdtempSync(path.join(os.tmpdir(), '.compiled-'));
    enableCompileCache(dir);
  } catch {
    return null;
  }
  return keep ? () => collect(dir) : null;
};

// Files one after the other: the length of the name (uint16, little endian), the name, the length (uint32), the bytes.
function collect(dir) {
  try {
    flushCompileCache();
    const parts = [];
    let size = 0;
    for (const folder of fs.readdirSync(dir)) {
      for (const file of fs.readdirSync(path.join(dir, folder))) {
        const name = Buffer.from(`${folder}/${file}`), bytes = fs.readFileSync(path.join(dir, folder, file));
        const head = Buffer.alloc(2), length = Buffer.alloc(4);
        head.writeUInt16LE(name.length);
        length.writeUInt32LE(bytes.length);
        parts.push(head, name, length, bytes);
        size += 6 + name.length + bytes.length;
      }
    }
    return size > 0 && size <= most ? Buffer.concat(parts) : null;
  } catch {
    return null;
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
}
