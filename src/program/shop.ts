import type { Connection } from '../postgres/connection.ts';

const SHOP = `
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, city text NOT NULL, joined date NOT NULL);
CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL, price_cents int NOT NULL, tags jsonb NOT NULL);
CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL REFERENCES customers, placed_at timestamptz NOT NULL, status text NOT NULL);
CREATE TABLE order_lines (order_id int NOT NULL REFERENCES orders, product_id int NOT NULL REFERENCES products, quantity int NOT NULL, PRIMARY KEY (order_id, product_id));
INSERT INTO customers SELECT n, 'Customer ' || n, (ARRAY['Lisbon','Oslo','Lyon','Graz'])[1 + n % 4], date '2020-01-01' + n FROM generate_series(1, 400) n;
INSERT INTO products SELECT n, 'Product ' || n, 100 + n * 7 % 9000, jsonb_build_array('tag' || n % 5) FROM generate_series(1, 120) n;
INSERT INTO orders SELECT n, 1 + n * 13 % 400, timestamptz '2026-01-01 00:00Z' + n * interval '7 minutes', (ARRAY['paid','sent','back'])[1 + n % 3] FROM generate_series(1, 12000) n;
INSERT INTO order_lines SELECT n, 1 + (n * 7 + k * 31) % 120, 1 + (n + k) % 4 FROM generate_series(1, 12000) n, generate_series(0, 2) k;
CREATE INDEX orders_by_customer ON orders (customer_id);
CREATE VIEW revenue AS SELECT c.city, sum(p.price_cents * l.quantity) AS cents FROM orders o JOIN customers c ON c.id = o.customer_id JOIN order_lines l ON l.order_id = o.id JOIN products p ON p.id = l.product_id GROUP BY c.city;
ANALYZE;
`;

/** Makes a database `shop` with customers, products, orders and a view in it: about 50,000 rows. */
export async function fillShop(connection: Pick<Connection, 'host' | 'port' | 'user' | 'password'>): Promise<void> {
  await query(connection, 'postgres', 'CREATE DATABASE shop');
  await query(connection, 'shop', SHOP);
}

/** Runs one statement and gives its rows. For the demo and the sandbox, whose servers are private. */
export async function query(
  { host, port, user, password }: Pick<Connection, 'host' | 'port' | 'user' | 'password'>,
  database: string,
  text: string,
): Promise<Record<string, unknown>[]> {
  const { default: pg } = await import('pg');
  const client = new pg.Client({ host, port, user, password, database });
  await client.connect();
  try {
    const result = await client.query(text);
    return result.rows ?? [];
  } finally {
    await client.end();
  }
}
