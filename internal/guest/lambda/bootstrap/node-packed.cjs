'use strict';
// The function's CommonJS modules in one file, with where each require() leads and what V8 compiled: what Node.js needs for a module otherwise,
// looking in a dozen folders, reading it and a package.json, and compiling it, takes most of the start of a function with hundreds of them.
//
// Modules run as they do otherwise, one by one, under their own names, and so do all that are not in the file. A module that is compiled in a way of
// its own (hooks of transpilers and tracers), or says import(), which needs the loader's own compiler, is left to Node.js.

const fs = require('fs');
const Module = require('module');
const path = require('path');
const vm = require('vm');

const MAGIC = Buffer.from('ebb pack 1\n'); // then the length of the head (uint32, little endian), the head as JSON, and the bytes it tells of
const least = 32 << 10; // bytes of source that are worth a pack
const most = 6 << 20; // bytes of source in one; what is compiled takes about as much again
const before = '(function (exports, require, module, __filename, __dirname) { ', after = '\n});'; // as Module.wrap, whose use has side effects

const { _extensions: extensions, _resolveFilename: resolve, prototype: { _compile: compile } } = Module;
const { '.js': js, '.json': json } = extensions;

// options are what else may decide where a module is found and how it is compiled.
const options = () => JSON.stringify([process.version, process.execArgv, process.env.NODE_OPTIONS, process.env.NODE_PATH]);

// fit says whether stack traces do not have to be mapped to other sources, which Node.js notes as it compiles.
const fit = () => !process.sourceMapsEnabled && !`${process.execArgv} ${process.env.NODE_OPTIONS}`.includes('--enable-source-maps');

const script = (filename, source, cachedData) => new vm.Script(before + source + after, { filename, columnOffset: -before.length, cachedData });

function run(s, m, filename) {
  const require = (id) => m.require(id);
  require.resolve = (request, o) => Module._resolveFilename(request, m, false, o);
  require.resolve.paths = (request) => Module._resolveLookupPaths(request, m);
  require.main = process.mainModule;
  require.extensions = Module._extensions;
  require.cache = Module._cache;
  return Reflect.apply(s.runInThisContext(), m.exports, [m.exports, require, m, filename, path.dirname(filename)]);
}

// ours says whether nobody else has a hand in how a module is compiled.
const ours = (m) => Module.prototype._compile === compile && !Object.hasOwn(m, '_compile');

// record notes what is loaded from folders, and gives what makes the pack of it.
exports.record = (roots) => {
  if (!fit()) return null;
  const within = (file) => roots.some((r) => file.startsWith(r));
  const modules = new Map(), resolved = {};
  let left = most;
  Module._resolveFilename = function (request, parent, isMain, o) {
    const file = resolve.call(this, request, parent, isMain, o);
    if (!o && !isMain && parent && parent.filename && within(parent.filename) && path.isAbsolute(file) && within(file)) {
      const of = resolved[path.dirname(parent.filename)] ||= Object.create(null);
      of[request] = request in of && of[request] !== file ? null : file;
    }
    return file;
  };
  extensions['.js'] = function (m, filename) {
    if (!ours(m) || !within(filename)) return js(m, filename);
    m._compile = function (source, name, format) { // by js, once it knows what kind of module it is
      delete m._compile;
      let s;
      if (format === undefined || format === 'commonjs') {
        try {
          if (source.length < left && !source.startsWith('#!') && !/\bimport\s*\(/.test(source)) s = script(name, source);
        } catch { /* Node.js says what is wrong with it */ }
      }
      if (s === undefined) return compile.call(m, source, name, format);
      left -= source.length;
      modules.set(name, [source, s]);
      return run(s, m, name);
    };
    return js(m, filename);
  };
  extensions['.json'] = function (m, filename) {
    json(m, filename);
    if (!within(filename)) return;
    const source = fs.readFileSync(filename, 'utf8');
    if (source.length >= left) return;
    left -= source.length;
    modules.set(filename, [source, null]);
  };
  return () => {
    Module._resolveFilename = resolve;
    extensions['.js'] = js;
    extensions['.json'] = json;
    return most - left < least ? null : pack(modules, resolved);
  };
};

function pack(modules, resolved) {
  const parts = [], at = {};
  let size = 0;
  for (const [name, [source, s]] of modules) {
    const text = Buffer.from(source), data = s === null ? Buffer.alloc(0) : s.createCachedData();
    at[name] = [size, text.length, data.length];
    parts.push(text, data);
    size += text.length + data.length;
  }
  const head = Buffer.from(JSON.stringify({ options: options(), at, resolved })), length = Buffer.alloc(4);
  length.writeUInt32LE(head.length);
  return Buffer.concat([MAGIC, length, head, ...parts]);
}

// play loads modules from a pack, if there is one and it is right for this process. It gives what lets go of its memory.
exports.play = (file) => {
  let all, head, start;
  try {
    all = fs.readFileSync(file);
    if (!all.subarray(0, MAGIC.length).equals(MAGIC)) return null;
    start = MAGIC.length + 4;
    const length = all.readUInt32LE(MAGIC.length);
    head = JSON.parse(all.toString('utf8', start, start + length));
    start += length;
  } catch {
    return null;
  }
  if (head.options !== options() || !fit()) return null;
  const { at, resolved } = head;
  const bytes = (from, n) => {
    if (all !== null) return all.subarray(start + from, start + from + n);
    const buf = Buffer.allocUnsafe(n), fd = fs.openSync(file);
    try {
      if (fs.readSync(fd, buf, 0, n, start + from) !== n) throw new Error(`${file} was cut`);
    } finally {
      fs.closeSync(fd);
    }
    return buf;
  };
  Module._resolveFilename = function (request, parent, isMain, o) {
    if (!o && !isMain && parent && parent.filename) {
      const of = resolved[path.dirname(parent.filename)];
      if (of !== undefined && Object.hasOwn(of, request) && of[request] !== null) return of[request];
    }
    return resolve.call(this, request, parent, isMain, o);
  };
  extensions['.js'] = function (m, filename) {
    if (!Object.hasOwn(at, filename) || !ours(m)) return js(m, filename);
    const [from, size, more] = at[filename], data = bytes(from, size + more);
    return run(script(filename, data.toString('utf8', 0, size), data.subarray(size)), m, filename);
  };
  extensions['.json'] = function (m, filename) {
    if (!Object.hasOwn(at, filename)) return json(m, filename);
    const [from, size] = at[filename];
    const text = bytes(from, size).toString('utf8');
    m.exports = JSON.parse(text.charCodeAt(0) === 0xfeff ? text.slice(1) : text);
  };
  return () => { all = null; };
};
