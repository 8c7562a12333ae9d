// A cluster of two Redis servers, each with half of the hash slots.
import { Cluster } from 'ioredis';
import { type RedisServer, startRedis } from './redis-server';

const slots = 16_384;

export interface RedisCluster {
  readonly client: Cluster;
  readonly nodes: readonly RedisServer[];
  stop(): Promise<void>;
}

export async function startRedisCluster(): Promise<RedisCluster> {
  const start = () => startRedis('--cluster-enabled', 'yes', '--cluster-announce-ip', '127.0.0.1');
  const nodes = [await start(), await start()];
  const clients = nodes.map((node) => node.client());
  for (const [i, client] of clients.entries()) {
    const half = Array.from({ length: slots / 2 }, (_, slot) => slot + (i * slots) / 2);
    await client.cluster('ADDSLOTS', ...half);
  }
  const ports = nodes.map(({ url }) => Number(new URL(url).port));
  await clients[0]!.cluster('MEET', '127.0.0.1', ports[1]!);
  for (const client of clients) {
    while (!(await client.cluster('INFO')).includes('cluster_state:ok')) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  const client = new Cluster(ports.map((port) => ({ host: '127.0.0.1', port })));
  return {
    client,
    nodes,
    async stop() {
      client.disconnect();
      for (const node of nodes) await node.stop();
    },
  };
}
