'use strict';
// Finds the place of a syntax error in the user's code. It is loaded only when there is one.

const fs = require('fs');
const path = require('path');
const { spawnSync } = require('child_process');

// A SyntaxError's stack begins with the place, which the name and message must not push out. Of an ES module's the place is known to
// Node alone, which tells it when it checks the file.
module.exports = function syntaxPlace(err, base) {
  let lines = String(err.stack).split('\n');
  let at = lines.findIndex((l) => l.startsWith('SyntaxError'));
  if (at <= 0) {
    const place = modulePlace(['.js', '.mjs', ''].map((e) => base + e));
    lines = [...place, ...lines.slice(1)];
    at = place.length;
  } else {
    lines.splice(at, 1);
  }
  return { stack: ['', ...lines.filter((l, i) => i >= at || l !== '')].join('\n') };
};

function modulePlace(files) {
  const seen = new Set();
  for (let i = 0; i < files.length && seen.size < 30; i++) {
    const file = files[i];
    if (seen.has(file) || !fs.statSync(file, { throwIfNoEntry: false })?.isFile()) continue;
    seen.add(file);
    const lines = spawnSync(process.execPath, ['--check', file], { encoding: 'utf8' }).stderr.split('\n');
    const end = lines.findIndex((l) => l.startsWith('SyntaxError'));
    if (end > 0) return lines.slice(0, end).filter((l) => l !== '');
    for (const m of fs.readFileSync(file, 'utf8').matchAll(/(?:from|import)\s*\(?\s*['"](\.[^'"]+)['"]/g)) files.push(path.resolve(path.dirname(file), m[1]));
  }
  return [];
}
