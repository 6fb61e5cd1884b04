// Server-sent events: each is with the client as soon as it is written.
exports.events = awslambda.streamifyResponse(async (event, responseStream) => {
  const out = awslambda.HttpResponseStream.from(responseStream, {
    statusCode: 200,
    headers: { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' },
  });
  for (let i = 1; i <= 3; i++) {
    out.write(`data: ${i}\n\n`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  out.end();
});
