'use strict';
// Answers of streaming handlers. It is loaded with the first Invocation of one.

const { Writable } = require('stream');

const HEAD = 1, BODY = 2, END = 3, ABORT = 6;

// It is given what the two halves share: frames, drained, errorDocument, logError, named and neverSettled of node.cjs, and over, which
// is called when the line is free for the next Invocation.
//
// An Invocation ends when its stream has ended, or broken, and the handler's promise has settled: until then its code may be at work.
module.exports = ({ frames, drained, errorDocument, logError, named, neverSettled, over }) => function stream(mine, handler, event, context, highWaterMark) {
  let type = 'application/octet-stream', begun = false, wrote = false, before = null;
  let ended = false, settled = false, fault = null, gone = null;
  const put = (chunk, done) => {
    const list = [];
    if (!begun) list.push([HEAD, 0, 's' + type]);
    begun = true;
    list.push([BODY, 0, chunk]);
    frames(list, done);
  };
  const first = (done) => {
    const f = before;
    before = null;
    if (f === null) done();
    else {
      const parts = [];
      f((p) => parts.push(Buffer.from(p)));
      put(Buffer.concat(parts), done);
    }
  };
  const finish = (flags, then) => {
    if (!ended || !settled || mine.answered) return;
    mine.answered = true;
    drained(() => {
      over();
      if (fault === null) frames(begun ? [[END, flags, '']] : [[HEAD, flags, 's' + type], [END, flags, '']], then);
      else if (begun) frames([[ABORT, flags, fault]], then);
      else frames([[HEAD, flags, 'e'], [END, flags, fault]], then);
    });
  };
  // broken ends the stream with an error, which is the answer's unless the answer is whole. All of them are logged.
  const broken = (err, title = 'Invoke Error') => {
    const e = err === undefined || err === null ? named('Error', String(err)) : err;
    // Once the reader has gone, errors of the stream are how the handler learns of it.
    if (gone === null || e !== gone && !/^ERR_STREAM_/.test(e.code)) logError(title, e);
    if (ended) return;
    ended = true;
    fault = errorDocument(e);
  };
  const fail = (err, title, flags = 0, then) => {
    if (mine.answered) return;
    broken(err, title);
    settled = true;
    finish(flags, then);
  };
  const w = new Writable({
    highWaterMark,
    decodeStrings: true,
    // What comes after the end of the Invocation must not get into the next one's answer.
    write(chunk, encoding, done) { ended || mine.answered ? done() : first(() => put(chunk, done)); },
    final(done) {
      first(() => {
        ended = true;
        done();
        finish(0);
      });
    },
  });
  w.setContentType = (t) => {
    if (wrote) throw named('InvalidStreamingOperation', 'Cannot set content-type, too late.');
    type = t;
  };
  Object.defineProperty(w, '_onBeforeFirstWrite', { get: () => before, set(f) { before = f; } });
  // What is neither text nor bytes is written as JSON.
  const bytes = (chunk) => (typeof chunk === 'string' || chunk instanceof Uint8Array || chunk === undefined ? chunk : JSON.stringify(chunk));
  const { write, end } = w;
  w.write = (chunk, ...more) => {
    wrote = true;
    return write.call(w, bytes(chunk), ...more);
  };
  w.end = (chunk, ...more) => end.call(w, typeof chunk === 'function' || chunk === null ? chunk : bytes(chunk), ...more);
  w.on('error', (err) => {
    if (ended) return; // of a write after the end, or the handler's own error again
    broken(err);
    finish(0);
  });
  w.on('close', () => {
    if (ended) return;
    broken(named('Error', 'the response stream was destroyed before its end'));
    finish(0);
  });
  const own = { close: 1, error: 1, drain: 0 }; // listeners
  mine.stream = {
    fail,
    idle() { // the event loop is empty
      if (settled) w.end();
      else if (gone === null && ['close', 'error', 'drain'].some((name) => w.listenerCount(name) > own[name])) return; // the host may still wake it
      else fail(gone || neverSettled());
    },
    left() { // nobody reads the answer any more
      if (ended || mine.answered) return;
      gone = Object.assign(named('Error', 'aborted: the client has disconnected'), { code: 'ECONNRESET' });
      fault = errorDocument(gone);
      ended = true;
      w.destroy(gone);
      finish(0);
    },
  };
  let result;
  try {
    result = handler(event, w, context);
  } catch (err) {
    fail(err);
    return;
  }
  if (result === null || typeof result !== 'object' || typeof result.then !== 'function') {
    fail(named('Error', 'Streaming does not support non-async handlers.'));
    return;
  }
  result.then((value) => {
    if (value !== undefined) console.warn('Streaming handlers ignore return values.');
    settled = true;
    finish(0);
  }, (err) => fail(err));
};
