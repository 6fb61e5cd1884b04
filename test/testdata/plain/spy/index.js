exports.spy = true;
