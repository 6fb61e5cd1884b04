// Two stacks: a queue, and a function behind an HTTP API that is told its name. Install the packages first: npm install
const { App, Stack } = require("aws-cdk-lib");
const { Code, Function, Runtime } = require("aws-cdk-lib/aws-lambda");
const { HttpApi, HttpMethod } = require("aws-cdk-lib/aws-apigatewayv2");
const { HttpLambdaIntegration } = require("aws-cdk-lib/aws-apigatewayv2-integrations");
const { Queue } = require("aws-cdk-lib/aws-sqs");

const app = new App();
const data = new Stack(app, "Data");
const queue = new Queue(data, "Jobs");

const web = new Stack(app, "Web");
const hello = new Function(web, "Hello", {
  runtime: Runtime.NODEJS_22_X,
  handler: "index.handler",
  code: Code.fromAsset("lambda"),
  environment: { GREETING: app.node.tryGetContext("greeting"), QUEUE: queue.queueName },
});
queue.grantSendMessages(hello);
new HttpApi(web, "Http").addRoutes({
  path: "/hello/{name}",
  methods: [HttpMethod.GET],
  integration: new HttpLambdaIntegration("HelloIntegration", hello),
});
