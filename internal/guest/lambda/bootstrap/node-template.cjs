'use strict';
// Node.js that waits to become a function: it has booted and loaded what functions mostly need, and finds out on descriptor 4 which one it
// is. Nothing of a function has been seen before. What comes after must not tell the difference.

const fs = require('fs');

const LINE = 4;

// wanted are the parts of Node that are loaded before: those that SDKs and frameworks load anyway.
const wanted = ['async_hooks', 'buffer', 'child_process', 'crypto', 'diagnostics_channel', 'dns', 'events', 'fs/promises', 'http', 'https', 'module', 'net', 'os', 'path',
  'perf_hooks', 'querystring', 'stream', 'stream/promises', 'string_decoder', 'timers', 'timers/promises', 'tls', 'tty', 'url', 'util', 'vm', 'zlib'];

module.exports = function template() {
  for (const name of wanted) {
    try {
      require(name);
    } catch { /* this Node has it not */ }
  }
  fs.writeSync(LINE, 'ready');
  const buf = Buffer.allocUnsafe(128 << 10);
  const n = fs.readSync(LINE, buf);
  if (n === 0) process.exit(0); // the host needs it no more
  const { command, env, dir } = JSON.parse(buf.toString('utf8', 0, n));
  // The order of variables shows, so all are set anew.
  for (const name of Object.keys(process.env)) delete process.env[name];
  for (const kv of env) {
    const at = kv.indexOf('=');
    process.env[kv.slice(0, at)] = kv.slice(at + 1);
  }
  process.chdir(dir);
  require('module')._initPaths(); // NODE_PATH
  const own = command.indexOf(process.argv[1]);
  process.argv.splice(2, Infinity, ...command.slice(own + 1));
  fs.writeSync(LINE, 'taken');
  fs.closeSync(LINE);
};
