'use strict';
// The guest's side of a Node.js function: it loads the handler, then serves Invocations as frames on descriptor 3.
// Arguments, the last ones perhaps missing: supplied SDK folder or "", the layers' folder or "", the folder with compiled code or "keep" where
// there is none yet; behind a wrapper script they come in _EBB_BOOTSTRAP, by line. Runs on Node 18 and later.
//
// A frame is length (uint32, little endian), kind (uint8), flags (uint8), call (uint16), then length bytes.
// An Invocation is HEAD, any number of BODY, END; so is its answer.

const fs = require('fs');
const net = require('net');
const path = require('path');
const util = require('util');

const HEAD = 1, BODY = 2, END = 3, READY = 4, FAILED = 5, LEFT = 7, KEPT = 8; // and ABORT in node-stream.cjs
const LAST = 1; // flag: the guest ends after this answer
const STREAMS = 2; // flag of READY: the handler streams its answers
const HEADER = 8;
const LINE = 3; // the descriptor

const writeSync = fs.writeSync;
const env = process.env;
if (env._EBB_TEMPLATE !== undefined) require('./node-template.cjs')(); // waits until it is known which function this is
const [supplied, layers, compiled] = env._EBB_BOOTSTRAP === undefined ? process.argv.slice(2) : env._EBB_BOOTSTRAP.split('\n');
if (env._EBB_BOOTSTRAP !== undefined) delete env._EBB_BOOTSTRAP;
process.argv.length = 2;

// ---- output ------------------------------------------------------------------------------------------------------

// process.stdout writes at once, unless the pipe is full; an answer then waits until it is drained. The streams are made on
// first use, as they cost start-up time.
let stdout = null, stderr = null;
for (const [name, keep] of [['stdout', (s) => { stdout = s; }], ['stderr', (s) => { stderr = s; }]]) {
  const d = Object.getOwnPropertyDescriptor(process, name);
  if (!d || !d.get || !d.configurable) continue;
  const get = d.get;
  Object.defineProperty(process, name, { ...d, get() { const s = get.call(process); keep(s); return s; } });
}

function drained(then) {
  for (const s of [stdout, stderr]) {
    if (s !== null && s.writableLength > 0 && !s.destroyed) {
      s.write('', () => drained(then));
      return;
    }
  }
  then();
}

const levels = ['TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL'];
const json = (env.AWS_LAMBDA_LOG_FORMAT || '').toUpperCase() === 'JSON';
const wanted = json ? levels.indexOf((env.AWS_LAMBDA_LOG_LEVEL || '').toUpperCase()) : -1;
let requestId;

function put(text) {
  if (stdout !== null) {
    stdout.write(text);
    return;
  }
  const buf = Buffer.from(text);
  let off = 0;
  try {
    while (off < buf.length) off += writeSync(1, buf, off);
  } catch (err) {
    if (err.code === 'EAGAIN') process.stdout.write(buf.subarray(off));
  }
}

function errorFields(err) {
  const out = { errorType: err.name || 'UnknownError', errorMessage: err.message, stack: String(err.stack).split('\n') };
  for (const k of Object.keys(err)) if (!(k in out)) out[k] = err[k];
  return out;
}

function plain(level, args) {
  const text = util.format(...args);
  put(`${new Date().toISOString()}\t${requestId}\t${level}\t${text}\n`);
}

// Set when the log format is JSON.
const structured = json ? require('./node-json.cjs')({ put, isError, errorFields, id: () => requestId }) : null;

function patchConsole() {
  const emit = json ? structured : plain;
  const method = (level) => (json && levels.indexOf(level) < wanted ? () => {} : (...args) => emit(level, args));
  console.log = console.info = method('INFO');
  console.warn = method('WARN');
  console.error = method('ERROR');
  console.debug = method('DEBUG');
  console.trace = method('TRACE');
  console.fatal = method('FATAL');
}

// logError prints an error that ended an Invocation or Init, as its owner looks for it in the log.
function logError(title, err) {
  const e = isError(err) ? err : Object.assign(new Error(String(err)), { stack: String(err) });
  if (json) structured('ERROR', [e]);
  else plain('ERROR', [`${title} \t${safeJSON(errorFields(e))}`]);
}

function safeJSON(v) {
  try {
    return JSON.stringify(v);
  } catch {
    return util.inspect(v);
  }
}

// ---- the line ----------------------------------------------------------------------------------------------------

// Answers are written at once from one reused buffer; what the line does not take goes through the socket, in order.
const out = Buffer.allocUnsafe(64 << 10);
const input = Buffer.allocUnsafe(64 << 10);
let call = 0; // number of the Invocation in progress

function header(buf, at, length, kind, flags) {
  buf.writeUInt32LE(length, at);
  buf[at + 4] = kind;
  buf[at + 5] = flags;
  buf.writeUInt16LE(call, at + 6);
}

function send(buf, length, done) {
  let off = 0;
  if (line.writableLength === 0) {
    try {
      while (off < length) off += writeSync(LINE, buf, off, length - off);
    } catch (err) {
      if (err.code !== 'EAGAIN') {
        process.exit(1); // the host is gone
      }
    }
  }
  if (off === length) {
    if (done) done();
  } else {
    line.write(Buffer.from(buf.subarray(off, length)), done);
  }
}

// frames writes frames of text or bytes in one go: [kind, flags, body], …
function frames(list, done) {
  let bound = 0;
  for (const f of list) bound += HEADER + (typeof f[2] === 'string' ? f[2].length * 3 : f[2].length);
  let buf = out;
  if (bound > buf.length) {
    bound = 0;
    for (const f of list) bound += HEADER + Buffer.byteLength(f[2]);
    buf = Buffer.allocUnsafe(bound);
  }
  let at = 0;
  for (const [kind, flags, body] of list) {
    const n = typeof body === 'string' ? buf.write(body, at + HEADER) : (buf.set(body, at + HEADER), body.length);
    header(buf, at, n, kind, flags);
    at += HEADER + n;
  }
  send(buf, at, done);
}

// The reader: frames are parsed in place where a read holds all of one.
let part = null, have = 0; // a frame of which some bytes are still to come
let head = '', body = null;

function onRead(n, buf) {
  let at = 0;
  while (at < n) {
    if (part === null) {
      if (n - at >= HEADER) {
        const length = buf.readUInt32LE(at);
        if (n - at >= HEADER + length) {
          frame(buf, at, length);
          at += HEADER + length;
          continue;
        }
        part = Buffer.allocUnsafe(HEADER + length);
      } else {
        part = Buffer.allocUnsafe(HEADER);
      }
      have = 0;
    }
    const take = Math.min(part.length - have, n - at);
    buf.copy(part, have, at, at + take);
    have += take;
    at += take;
    if (have < part.length) continue;
    const length = part.readUInt32LE(0);
    if (have < HEADER + length) {
      const whole = Buffer.allocUnsafe(HEADER + length);
      part.copy(whole, 0, 0, have);
      part = whole;
      continue;
    }
    const whole = part;
    part = null;
    frame(whole, 0, length);
  }
  return true;
}

function frame(buf, at, length) {
  const start = at + HEADER, end = start + length;
  switch (buf[at + 4]) {
    case HEAD:
      if (current !== null) {
        // Something else than this program has answered what is in progress, by the descriptor: the answer that is still to come would go to
        // whoever has called now.
        fs.writeSync(2, 'Runtime.ProtocolViolation: the function has written an answer to the descriptor of its runtime\n');
        process.exit(1);
      }
      call = buf.readUInt16LE(at + 6);
      head = buf.toString('utf8', start, end);
      body = null;
      break;
    case BODY:
      (body ||= []).push(Buffer.from(buf.subarray(start, end)));
      break;
    case END:
      if (body !== null) {
        body.push(buf.subarray(start, end));
        invoke(head, Buffer.concat(body).toString());
        body = null;
      } else {
        invoke(head, buf.toString('utf8', start, end));
      }
      break;
    case LEFT:
      if (current !== null && current.stream !== null && buf.readUInt16LE(at + 6) === call) current.stream.left();
  }
}

const line = new net.Socket({ fd: LINE, readable: true, writable: true, onread: { buffer: input, callback: onRead } });
line.on('error', () => process.exit(1));
line.on('end', () => process.exit(0));

// ---- errors ------------------------------------------------------------------------------------------------------

function isError(v) {
  return util.types.isNativeError(v) || (typeof v === 'object' && v !== null && 'stack' in v && 'message' in v && 'name' in v);
}

function errorDocument(err) {
  try {
    if (isError(err)) {
      return JSON.stringify({
        errorType: String(err.name).replaceAll('\x7f', '%7F'),
        errorMessage: String(err.message).replaceAll('\x7f', '%7F'),
        trace: String(err.stack).replaceAll('\x7f', '%7F').split('\n'),
      });
    }
    return JSON.stringify({ errorType: typeof err, errorMessage: String(err), trace: [] });
  } catch {
    return '{"errorType":"handled","errorMessage":"callback called with Error argument, but there was a problem while retrieving one or more of its message, name, and stack","trace":[]}';
  }
}

function named(name, message, cause) {
  const err = new Error(message);
  err.name = name;
  if (cause && cause.stack) err.stack = `${name}: ${message}\n` + String(cause.stack).split('\n').slice(1).join('\n');
  return err;
}

// neverSettled is the error of a handler whose promise nothing can settle any more.
function neverSettled() {
  const err = named('Runtime.NodeJsExit', 'The Lambda runtime client detected an unexpected Node.js exit code. This is most commonly caused by a Promise that was never settled. For more information, see https://nodejs.org/docs/latest/api/process.html#exit-codes');
  err.stack = `${err.name}: ${err.message}`; // no place of the handler is known
  return err;
}

// ---- one Invocation ----------------------------------------------------------------------------------------------

let current = null; // the Invocation in progress, not yet answered
let handler;

// Fields that are the same in every context.
const fixed = {
  functionVersion: env.AWS_LAMBDA_FUNCTION_VERSION,
  functionName: env.AWS_LAMBDA_FUNCTION_NAME,
  memoryLimitInMB: env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE,
  logGroupName: env.AWS_LAMBDA_LOG_GROUP_NAME,
  logStreamName: env.AWS_LAMBDA_LOG_STREAM_NAME,
};

function invoke(head, text) {
  const [id, deadline, arn, trace, client] = head.split('\n');
  requestId = id;
  env._X_AMZN_TRACE_ID = trace;
  const mine = { wait: true, answered: false, late: null, promised: false, stream: null };
  current = mine;
  // With the line not counted, an empty event loop shows itself (beforeExit).
  line.unref();
  let event;
  try {
    event = JSON.parse(text);
  } catch (err) {
    answerError(mine, named('Runtime.UnmarshalError', `the event is not valid JSON: ${err.message}`));
    return;
  }
  const callback = (err, data) => {
    if (mine.answered || mine.late !== null) return;
    // An error is answered at once; only success waits for the event loop.
    if (err !== undefined && err !== null || !mine.wait) finish(mine, err, data);
    else mine.late = () => finish(mine, err, data);
  };
  const now = (err, data) => {
    mine.wait = false;
    if (mine.late === null) finish(mine, err, data);
  };
  const deadlineMS = +deadline;
  const context = {
    get callbackWaitsForEmptyEventLoop() { return mine.wait; },
    set callbackWaitsForEmptyEventLoop(v) { mine.wait = v; },
    functionVersion: fixed.functionVersion,
    functionName: fixed.functionName,
    memoryLimitInMB: fixed.memoryLimitInMB,
    logGroupName: fixed.logGroupName,
    logStreamName: fixed.logStreamName,
    clientContext: undefined,
    identity: undefined,
    invokedFunctionArn: arn,
    awsRequestId: id,
    getRemainingTimeInMillis: () => deadlineMS - Date.now(),
    succeed: (data) => now(null, data),
    fail: (err) => now(err === undefined || err === null ? 'handled' : err),
    done: (err, data) => now(err, data),
  };
  if (client) {
    try {
      context.clientContext = JSON.parse(client);
    } catch { /* what is no JSON is no client context */ }
  }
  try {
    if (handler[streaming]) {
      stream(mine, event, context);
      return;
    }
    const result = handler(event, context, callback);
    if (result !== null && typeof result === 'object' && typeof result.then === 'function') {
      mine.promised = true;
      result.then(context.succeed, (err) => now(err === undefined || err === null ? named('Error', String(err)) : err));
    }
  } catch (err) {
    answerError(mine, err);
  }
}

function finish(mine, err, data) {
  if (mine.answered) return;
  if (err !== undefined && err !== null) {
    answerError(mine, err);
    return;
  }
  let text;
  try {
    text = JSON.stringify(data);
    if (text === undefined) text = 'null';
  } catch (e) {
    answerError(mine, named('Runtime.MarshalError', `Unable to stringify response body as json: ${e.message}`, e));
    return;
  }
  answer(mine, 'r', 0, text);
}

function answerError(mine, err, title = 'Invoke Error', flags = 0, then) {
  if (mine.answered) return;
  logError(title, err);
  answer(mine, 'e', flags, errorDocument(err), then);
}

function answer(mine, kind, flags, text, then) {
  mine.answered = true;
  if (stdout !== null || stderr !== null) drained(() => write(kind, flags, text, then));
  else write(kind, flags, text, then);
}

// over makes the line free for the next Invocation.
function over() {
  current = null;
  line.ref();
}

function write(kind, flags, text, then) {
  over();
  frames([[HEAD, flags, kind], [END, flags, text]], then);
}

process.on('beforeExit', () => {
  const mine = current;
  if (mine === null) {
    if (!handler) initFailed(named('Runtime.InitError', 'the handler\'s module waits for something that never happens: its event loop is empty'));
    return;
  }
  if (mine.answered) return;
  line.ref();
  if (mine.late !== null) setImmediate(mine.late);
  else if (mine.stream !== null) mine.stream.idle();
  else if (mine.promised) answerError(mine, neverSettled());
  else setImmediate(finish, mine, null, undefined);
});

process.on('uncaughtException', (err) => fatal('Uncaught Exception', err, 129));
process.on('unhandledRejection', (reason) => {
  const err = named('Runtime.UnhandledPromiseRejection', isError(reason) ? `${reason.name}: ${reason.message}` : String(reason), reason);
  err.reason = reason;
  fatal('Unhandled Promise Rejection', err, 128);
});

// fatal answers what is in progress with the error and ends the guest.
function fatal(title, err, code) {
  const mine = current;
  if (!handler) {
    initFailed(err, title, code);
  } else if (mine !== null && !mine.answered) {
    const exit = () => process.exit(code);
    if (mine.stream !== null) mine.stream.fail(err, title, LAST, exit);
    else answerError(mine, err, title, LAST, exit);
  } else {
    logError(title, err);
    drained(() => process.exit(code));
  }
}

// ---- streamed answers --------------------------------------------------------------------------------------------

const streaming = Symbol.for('aws.lambda.runtime.handler.streaming');
const HIGH = Symbol.for('aws.lambda.runtime.handler.streaming.highWaterMark');
const PRELUDE = 'application/vnd.awslambda.http-integration-response';

let streams = null; // node-stream.cjs

function stream(mine, event, context) {
  streams ||= require('./node-stream.cjs')({ frames, drained, errorDocument, logError, named, neverSettled, over });
  streams(mine, handler, event, context, handler[HIGH]);
}

globalThis.awslambda = {
  streamifyResponse(f, options) {
    f[streaming] = 'response';
    if (options && typeof options.highWaterMark === 'number') f[HIGH] = options.highWaterMark;
    return f;
  },
  HttpResponseStream: {
    from(underlying, prelude) {
      underlying.setContentType(PRELUDE);
      const text = JSON.stringify(prelude);
      underlying._onBeforeFirstWrite = (write) => {
        write(text);
        write(new Uint8Array(8)); // ends the head
      };
      return underlying;
    },
  },
};

// ---- loading the handler -----------------------------------------------------------------------------------------

function isModule(file) {
  for (let dir = path.dirname(file); ; dir = path.dirname(dir)) {
    try {
      return JSON.parse(fs.readFileSync(path.join(dir, 'package.json'), 'utf8')).type === 'module';
    } catch { /* no package.json here, or none that can be read */ }
    if (dir === path.dirname(dir) || path.basename(dir) === 'node_modules') return false;
  }
}

async function load(root, moduleRoot, name) {
  const base = path.resolve(root, moduleRoot, name);
  const is = (ext) => {
    const s = fs.statSync(base + ext, { throwIfNoEntry: false });
    return s !== undefined && s.isFile();
  };
  if (is('')) return requireFile(base);
  if (is('.js')) return isModule(base) ? importModule(base + '.js') : requireFile(base + '.js');
  if (is('.mjs')) return importModule(base + '.mjs');
  if (is('.cjs')) return requireFile(base + '.cjs');
  return require(require.resolve(moduleRoot === '' || moduleRoot === '.' ? name : path.join(moduleRoot, name), { paths: [root, path.resolve(root, moduleRoot)] }));
}

// NODE_PATH does not reach `import`, so packages of layers and the supplied SDKs are looked for in these places when they are not found
// otherwise. Newer versions of Node have hooks that cost nothing; older ones need a thread for them, which is started only when needed.
const { register, registerHooks } = require('module');
let bases = null, threaded = false;

function openModules() {
  const { pathToFileURL } = require('url');
  const dirs = [];
  if (layers) {
    const asked = /nodejs(\d+)/.exec(env.AWS_EXECUTION_ENV);
    if (asked) dirs.push(`${layers}/nodejs/node${asked[1]}`);
    dirs.push(`${layers}/nodejs`);
  }
  if (supplied) dirs.push(`${supplied}/nodejs`);
  bases = dirs.map((d) => pathToFileURL(`${d}/x.js`).href);
  if (bases.length === 0 || !registerHooks) return;
  registerHooks({
    resolve(specifier, context, next) {
      try {
        return next(specifier, context);
      } catch (err) {
        if (err.code !== 'ERR_MODULE_NOT_FOUND' || /^(\.|\/|#|[a-z]+:)/.test(specifier)) throw err;
        for (const parentURL of bases) {
          try {
            return next(specifier, { ...context, parentURL });
          } catch { /* not there either */ }
        }
        throw err;
      }
    },
  });
}

function startThread() {
  if (threaded || !register) return false;
  threaded = true;
  register(require('url').pathToFileURL(path.join(__dirname, 'node-hooks.mjs')).href, { data: bases });
  return true;
}

// An import() of a package may come at any time later: the thread must be there before.
function mayImportLater(file) {
  if (bases.length > 0 && !registerHooks && /\bimport\s*\(\s*['"`](?![./#]|[a-z]+:)/.test(fs.readFileSync(file, 'utf8'))) startThread();
}

async function importModule(file) {
  const url = require('url').pathToFileURL(file).href;
  try {
    mayImportLater(file);
    return await import(url);
  } catch (err) {
    if (!err || err.code !== 'ERR_MODULE_NOT_FOUND' || bases.length === 0 || registerHooks || !startThread()) throw err;
    return import(url + '?ebb-retry');
  }
}

function requireFile(file) {
  mayImportLater(file);
  return require(file);
}

async function start() {
  const root = env.LAMBDA_TASK_ROOT, full = env._HANDLER;
  if (full.includes('..')) throw named('Runtime.MalformedHandlerName', `'${full}' is not a valid handler name. Use absolute paths when specifying root directories in handler names.`);
  const base = path.basename(full);
  const moduleRoot = full.substring(0, full.length - base.length);
  const m = /^([^.]*)\.(.*)$/.exec(base);
  if (m === null) throw named('Runtime.MalformedHandlerName', `Bad handler '${full}': want "file.function"`);
  let app;
  openModules();
  try {
    app = await load(root, moduleRoot, m[1]);
  } catch (err) {
    if (err instanceof SyntaxError) throw named('Runtime.UserCodeSyntaxError', String(err), require('./node-place.cjs')(err, path.resolve(root, moduleRoot, m[1])));
    if (err && (err.code === 'MODULE_NOT_FOUND' || err.code === 'ERR_MODULE_NOT_FOUND')) throw named('Runtime.ImportModuleError', String(err), err);
    throw err;
  }
  let f = app;
  for (const key of m[2].split('.')) f = f === undefined || f === null ? undefined : f[key];
  if (f === undefined && app && app.default) {
    f = app.default;
    for (const key of m[2].split('.')) f = f === undefined || f === null ? undefined : f[key];
  }
  if (f === undefined || f === null) throw named('Runtime.HandlerNotFound', `${full} is undefined or not exported`);
  if (typeof f !== 'function') throw named('Runtime.HandlerNotFound', `${full} is not a function`);
  return f;
}

function initFailed(err, title = 'Uncaught Exception', code = 1) {
  logError(title, err);
  drained(() => frames([[FAILED, LAST, errorDocument(err)]], () => process.exit(code)));
}

// What is compiled of the code is kept for the next Instances: only until here has no request been seen.
const kept = compiled ? require('./node-compiled.cjs')(compiled, [env.LAMBDA_TASK_ROOT, layers, supplied].filter(Boolean).map((dir) => dir + path.sep)) : null;

patchConsole();
line.unref();
const clock = process.hrtime, loading = clock();
start().then((f) => {
  handler = f;
  line.ref();
  const [s, ns] = clock(loading);
  const cache = kept && kept();
  if (cache) frames([[KEPT, 0, cache]]);
  frames([[READY, handler[streaming] ? STREAMS : 0, String(Math.round(s * 1e6 + ns / 1e3))]]);
}, initFailed);
