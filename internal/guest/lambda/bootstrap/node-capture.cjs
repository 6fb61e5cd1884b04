'use strict';
// Loaded before everything else by each Node.js program of a function that shares this machine's network: connections to the names of captured
// services, and to the address that they resolve to here, go to ebb instead. _EBB_CAPTURE says where that is, with TLS and without, and which
// domains. Node 12 and later.

const [tls, clear, ...domains] = (process.env._EBB_CAPTURE || '').split(' ');
if (domains.length > 0) {
  const net = require('net');
  const dns = require('dns');

  const standIn = '198.18.0.1'; // stands for all names; RFC 2544, section C.2.2: nobody's
  const ends = domains.map((d) => '.' + d);
  const captured = (host) => {
    if (typeof host !== 'string') return false;
    let name = host.toLowerCase();
    if (name.endsWith('.')) name = name.slice(0, -1);
    return ends.some((end) => name.endsWith(end));
  };
  const metadata = /^(::ffff:)?169\.254\.|^fd00:ec2:|^metadata\.google\.internal\.?$/i;
  const fault = (code, text, more) => Object.assign(new Error(`${code} ${text}`), { code, ...more });

  // place gives where a connection really goes, an Error where it goes nowhere, or nothing.
  const place = (host, port) => {
    if (captured(host) || host === standIn) {
      const to = Number(port) === 443 ? tls : Number(port) === 80 ? clear : '';
      if (to === '') return fault('ECONNREFUSED', `${host}:${port}: AWS's services answer at 443 and 80`, { syscall: 'connect', address: host, port });
      const at = to.lastIndexOf(':');
      return { host: to.slice(0, at), port: Number(to.slice(at + 1)) };
    }
    if (metadata.test(host)) return fault('EHOSTUNREACH', `${host}: metadata of this machine is not a function's`, { syscall: 'connect', address: host, port });
    return undefined;
  };

  // As net does with the arguments of connect: [options, callback] in an array, options, port and host, or a path.
  const connect = net.Socket.prototype.connect;
  net.Socket.prototype.connect = function (...args) {
    const list = Array.isArray(args[0]) ? args[0] : args;
    const first = list[0];
    let to;
    if (first !== null && typeof first === 'object') {
      if (!first.path && first.host && (to = place(first.host, first.port)) && !(to instanceof Error)) {
        list[0] = { ...first, ...to, family: 4, lookup: undefined, localAddress: undefined };
      }
    } else if (typeof list[1] === 'string' && (to = place(list[1], first)) && !(to instanceof Error)) {
      list[0] = to.port;
      list[1] = to.host;
    }
    if (to instanceof Error) {
      this.connecting = true;
      process.nextTick(() => this.destroy(to));
      return this;
    }
    return connect.apply(this, args);
  };

  const answer = (options) => {
    const o = typeof options === 'object' && options !== null ? options : { family: options };
    return { all: o.all === true, none: o.family === 6 || o.family === 'IPv6' };
  };
  const missing = (name, syscall) => fault('ENOTFOUND', name, { errno: -3008, syscall, hostname: name });

  const replace = (of, name, make) => {
    const was = of && of[name];
    if (typeof was === 'function') of[name] = Object.assign(make(was), was);
  };
  replace(dns, 'lookup', (was) => function lookup(host, options, done) {
    if (!captured(host)) return was.apply(this, arguments);
    const then = typeof options === 'function' ? options : done;
    const o = answer(typeof options === 'function' ? undefined : options);
    process.nextTick(() => {
      if (o.none) then(missing(host, 'getaddrinfo'));
      else if (o.all) then(null, [{ address: standIn, family: 4 }]);
      else then(null, standIn, 4);
    });
    return {};
  });
  replace(dns.promises, 'lookup', (was) => async function lookup(host, options) {
    if (!captured(host)) return was.apply(this, arguments);
    const o = answer(options);
    if (o.none) throw missing(host, 'getaddrinfo');
    return o.all ? [{ address: standIn, family: 4 }] : { address: standIn, family: 4 };
  });
  const found = (options) => [options && options.ttl === true ? { address: standIn, ttl: 60 } : standIn];
  for (const of of [dns, dns.Resolver && dns.Resolver.prototype]) {
    replace(of, 'resolve4', (was) => function resolve4(host, options, done) {
      if (!captured(host)) return was.apply(this, arguments);
      const then = typeof options === 'function' ? options : done;
      process.nextTick(() => then(null, found(options)));
      return {};
    });
    replace(of, 'resolve6', (was) => function resolve6(host, options, done) {
      if (!captured(host)) return was.apply(this, arguments);
      const then = typeof options === 'function' ? options : done;
      process.nextTick(() => then(fault('ENODATA', host, { syscall: 'queryAaaa', hostname: host })));
      return {};
    });
    replace(of, 'resolve', (was) => function resolve(host, type, done) {
      if (!captured(host) || (typeof type === 'string' && type !== 'A')) return was.apply(this, arguments);
      return this === undefined ? dns.resolve4(host, typeof type === 'function' ? type : done) : this.resolve4(host, typeof type === 'function' ? type : done);
    });
  }
  for (const of of [dns.promises, dns.promises && dns.promises.Resolver && dns.promises.Resolver.prototype]) {
    replace(of, 'resolve4', (was) => async function resolve4(host, options) {
      return captured(host) ? found(options) : was.apply(this, arguments);
    });
    replace(of, 'resolve6', (was) => async function resolve6(host) {
      if (captured(host)) throw fault('ENODATA', host, { syscall: 'queryAaaa', hostname: host });
      return was.apply(this, arguments);
    });
    replace(of, 'resolve', (was) => async function resolve(host, type) {
      return captured(host) && (type === undefined || type === 'A') ? found() : was.apply(this, arguments);
    });
  }
  require('module').syncBuiltinESMExports();
}
