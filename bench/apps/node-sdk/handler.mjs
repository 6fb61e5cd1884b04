import { DynamoDBClient } from "@aws-sdk/client-dynamodb";
import { DynamoDBDocumentClient, GetCommand } from "@aws-sdk/lib-dynamodb";

const table = DynamoDBDocumentClient.from(new DynamoDBClient({ region: "us-east-1" }));

export const hello = async (event) => {
  if (event.key) return table.send(new GetCommand({ TableName: "t", Key: { id: event.key } }));
  return { statusCode: 200, headers: { "content-type": "application/json" }, body: JSON.stringify({ message: "Hello, world!" }) };
};
