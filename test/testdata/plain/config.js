require('./spy.js')('config');
module.exports = { seen: 'yes' };
