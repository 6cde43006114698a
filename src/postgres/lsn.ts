/** Reads a place in the write-ahead log, `16/B374D848`, as the number of bytes before it. */
export function parseLsn(text: string): bigint {
  const [high = '', low = ''] = text.split('/');
  return (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`);
}

/** Names the segment file that holds a byte of the write-ahead log, `000000010000001600000B37`. */
export function segmentName(timeline: number, lsn: bigint, segmentSize: number): string {
  const perLog = 0x1_0000_0000n / BigInt(segmentSize);
  const number = lsn / BigInt(segmentSize);
  return [BigInt(timeline), number / perLog, number % perLog]
    .map((part) => part.toString(16).toUpperCase().padStart(8, '0'))
    .join('');
}
