module.exports = { key: 1 };
