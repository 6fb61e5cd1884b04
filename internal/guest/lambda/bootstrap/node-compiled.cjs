'use strict';
// Compiled code of the function. It is loaded where the host has some, or a place for it: CommonJS modules from a pack, and others, with Node.js
// 22.10 and later, from Node's own cache.

const fs = require('fs');
const os = require('os');
const path = require('path');
const { enableCompileCache, flushCompileCache } = require('module');
const packed = require('./node-packed.cjs');

const most = 16 << 20; // bytes, as the host takes
const folder = `pack-${process.version}-${process.arch}`, file = 'commonjs';

// It is given the folder with compiled code, or "keep", and where the function's modules are. It gives what is to be called after Init, whose result
// is the compiled code as the host wants it, or null.
module.exports = function compiled(from, roots) {
  if (process.env.NODE_DISABLE_COMPILE_CACHE !== undefined) return null;
  const keep = from === 'keep';
  const cache = own(keep ? null : from);
  const pack = keep ? packed.record(roots) : packed.play(path.join(from, folder, file));
  if (keep) return () => collect(cache, pack);
  return pack && (() => { pack(); return null; });
};

// own starts Node's own cache in a folder, or a new one, and gives the folder; or null.
function own(dir) {
  if (!flushCompileCache || process.env.NODE_COMPILE_CACHE !== undefined) return null;
  try {
    dir ??= fs.mkdtempSync(path.join(os.tmpdir(), '.compiled-'));
    enableCompileCache(dir);
    return dir;
  } catch {
    return null;
  }
}

// Files one after the other: the length of the name (uint16, little endian), the name, the length (uint32), the bytes.
function collect(dir, pack) {
  const parts = [];
  let size = 0;
  const add = (where, bytes) => {
    const name = Buffer.from(where), head = Buffer.alloc(2), length = Buffer.alloc(4);
    head.writeUInt16LE(name.length);
    length.writeUInt32LE(bytes.length);
    if (size + 6 + name.length + bytes.length > most) return;
    parts.push(head, name, length, bytes);
    size += 6 + name.length + bytes.length;
  };
  try {
    const all = pack && pack();
    if (all) add(`${folder}/${file}`, all);
    if (dir !== null) {
      flushCompileCache();
      for (const f of fs.readdirSync(dir)) {
        for (const name of fs.readdirSync(path.join(dir, f))) add(`${f}/${name}`, fs.readFileSync(path.join(dir, f, name)));
      }
    }
    if (size === 0) add(`${folder}/none`, Buffer.alloc(0)); // nobody has to try again
    return Buffer.concat(parts);
  } catch {
    return null;
  } finally {
    if (dir !== null) fs.rmSync(dir, { recursive: true, force: true });
  }
}
