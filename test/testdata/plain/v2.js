const AWS = require('aws-sdk');
const { tell, note } = require('./tell.js');
// The library keeps the credentials that it found first.
const who = async () => (await new AWS.STS({ region: 'eu-west-1', credentials: await new AWS.CredentialProviderChain().resolvePromise() }).getCallerIdentity().promise()).Arn;
const send = async () => (await new AWS.SQS({ region: 'eu-west-1' }).sendMessage({ QueueUrl: 'https://sqs.eu-west-1.amazonaws.com/123456789012/jobs', MessageBody: 'x' }).promise()).MessageId;
exports.handler = async () => {
  process.env.AWS_SDK_LOAD_CONFIG = '1';
  const out = await tell(who, send);
  const of = (c) => c.getPromise().then(() => c.accessKeyId);
  await note(out, 'shared file', () => of(new AWS.SharedIniFileCredentials({ profile: 'default' })));
  await note(out, 'process', () => of(new AWS.ProcessCredentials({ profile: 'process' })));
  await note(out, 'sso', () => of(new AWS.SsoCredentials({ profile: 'sso' })));
  await note(out, 'machine', () => of(new AWS.EC2MetadataCredentials({ httpOptions: { timeout: 2000 }, maxRetries: 0 })));
  return out;
};
