// What a program of the project's sees of the developer.
const fs = require('fs');
const os = require('os');
const path = require('path');
const read = (file) => { try { return fs.readFileSync(file, 'utf8'); } catch (e) { return e.code; } };
const see = (name) => fs.writeFileSync(path.join(__dirname, `seen-${name}.json`), JSON.stringify({
  env: process.env, home: os.homedir(), npmrc: read(path.join(os.homedir(), '.npmrc')),
  credentials: read(path.join(os.homedir(), '.aws', 'credentials')), config: read(path.join(os.homedir(), '.aws', 'config')),
}));
if (require.main === module) see(process.argv[2]);
module.exports = see;
