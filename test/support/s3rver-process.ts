import S3rver from 's3rver';

// A store that a test can kill and start again on the same port and folder.
const [port = '0', directory = ''] = process.argv.slice(2);
const server = new S3rver({
  port: Number(port),
  address: '127.0.0.1',
  silent: true,
  directory,
  configureBuckets: [{ name: 'backups' }],
});
const { port: listening } = await server.run();
process.stdout.write(`${listening}\n`);
