const fs = require('fs');
const { spawn } = require('child_process');

const { ROW, TOKEN } = process.env;
let calls = 0;

const answer = (text) => ({ statusCode: 200, body: text });

// A whole answer as the host reads it from descriptor 3.
function forge(call, text) {
  const frame = (kind, body) => {
    const b = Buffer.alloc(8 + body.length);
    b.writeUInt32LE(body.length);
    b[4] = kind;
    b.writeUInt16LE(call, 6);
    b.write(body, 8);
    return b;
  };
  fs.writeSync(3, Buffer.concat([frame(1, 'r'), frame(3, JSON.stringify(answer(text)))]));
}

// A process in a session of its own that holds standard output.
const linger = () => spawn('/bin/sh', ['-c', 'sleep 1000; :', TOKEN], { detached: true, stdio: 'inherit' });

if (ROW === 'init') forge(1, 'forged');
if (ROW === 'slow') {
  linger();
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}
if (ROW === 'exits') {
  linger();
  process.exit(3);
}

exports.handler = async (event) => {
  calls++;
  const q = event.queryStringParameters;
  if ('well' in q) return answer(q.n);
  if (ROW === 'twice') forge(calls, q.n);
  if (ROW === 'other') forge(calls + 1, 'forged');
  if (ROW === 'early') setTimeout(() => forge(calls + 1, 'forged'), 5);
  if (ROW === 'holds') {
    linger();
    process.exit(0);
  }
  return answer(q.n);
};
