// One function behind an HTTP API (payload 2.0) and a REST API (payload 1.0).
exports.hello = async (event) => ({
  statusCode: 200,
  headers: { "content-type": "application/json" },
  body: JSON.stringify({
    message: `${process.env.GREETING}, ${event.pathParameters.name}!`,
    payload: event.version || "1.0",
  }),
});
