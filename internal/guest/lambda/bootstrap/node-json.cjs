'use strict';
// The log format JSON, as Lambda writes it. It is loaded only when AWS_LAMBDA_LOG_FORMAT asks for it.

const util = require('util');

module.exports = ({ put, isError, errorFields, id }) => {
  return function structured(level, args) {
    const line = { timestamp: new Date().toISOString(), level, requestId: id() };
    const one = args.length === 1 ? args[0] : undefined;
    if (isError(one)) {
      Object.assign(line, { errorType: one.name, errorMessage: one.message, stackTrace: String(one.stack).split('\n'), message: one });
    } else {
      line.message = one !== undefined ? one : util.format(...args);
      const err = args.find(isError);
      if (err) Object.assign(line, { errorType: err.name, errorMessage: err.message, stackTrace: String(err.stack).split('\n') });
    }
    const seen = [];
    put(JSON.stringify(line, function (key, v) {
      if (typeof v === 'bigint') return v.toString();
      if (isError(v)) return errorFields(v);
      if (typeof v === 'object' && v !== null) {
        while (seen.length > 0 && seen[seen.length - 1] !== this) seen.pop();
        if (seen.includes(v)) return '[Circular]';
        seen.push(v);
      }
      return v;
    }) + '\n');
  };
};
