exports.handler = async (event) => ({
  statusCode: 200,
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ message: `${process.env.GREETING}, ${event.pathParameters.name}!`, queue: Boolean(process.env.QUEUE) }),
});
