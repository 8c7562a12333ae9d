// What package.json says of the package.
export const { version, description } = require('../../package.json') as { version: string; description: string };
