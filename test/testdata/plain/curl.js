const { execFileSync } = require('child_process');
const { note } = require('./tell.js');
const curl = (url) => execFileSync('curl', ['-sS', '--max-time', '30', url]).toString();
exports.handler = async () => {
  const out = { home: require('os').homedir() };
  const answered = (url) => (curl(url).includes('<Code>MissingAuthenticationToken</Code>') ? 'arn:' : 'failed: no answer of ebb\'s');
  await note(out, 'own', () => answered('https://sqs.eu-west-1.amazonaws.com/?Action=ListQueues'));
  await note(out, 'own in clear', () => answered('http://sqs.eu-west-1.amazonaws.com/?Action=ListQueues'));
  await note(out, 'metadata', () => { const text = curl('http://169.254.169.254/latest/meta-data/'); return text.includes('is not allowed') ? `failed: ${text}` : text; });
  await note(out, 'containers', () => { const text = curl('http://169.254.170.2/v2/credentials'); return text.includes('is not allowed') ? `failed: ${text}` : text; });
  return out;
};
