export default { service: 'typed' };
