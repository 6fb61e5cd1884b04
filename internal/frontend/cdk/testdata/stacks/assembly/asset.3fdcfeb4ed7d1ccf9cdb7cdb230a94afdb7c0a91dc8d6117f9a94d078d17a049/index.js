exports.handler = async (e) => ({ statusCode: 200, body: JSON.stringify({ m: `${process.env.GREETING}, ${e.pathParameters.name}!`, nested: process.env.NESTED }) });
exports.nested = async () => "nested";
