// Lets `import` find packages of layers and the supplied SDKs, which NODE_PATH does not reach, for Node without module.registerHooks.
// It is loaded only when a package was not found.

let bases = [];

export function initialize(data) {
  bases = data;
}

// A module that could not be linked stays failed, so the retry loads the code under a new URL.
const mark = '?ebb-retry';

export async function resolve(specifier, context, next) {
  const found = await find(specifier, context, next);
  if (context.parentURL && context.parentURL.endsWith(mark) && found.url.startsWith('file:') && !found.url.includes('?')) {
    return { ...found, url: found.url + mark };
  }
  return found;
}

async function find(specifier, context, next) {
  try {
    return await next(specifier, context);
  } catch (err) {
    if (err.code !== 'ERR_MODULE_NOT_FOUND' || /^(\.|\/|#|[a-z]+:)/.test(specifier)) throw err;
    for (const parentURL of bases) {
      try {
        return await next(specifier, { ...context, parentURL });
      } catch { /* not there either */ }
    }
    throw err;
  }
}
