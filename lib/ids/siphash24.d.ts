declare module 'siphash24' {
  /** Writes the 8 bytes of the hash into `out`. @param key 16 bytes */
  export default function siphash24(
    message: Uint8Array,
    key: Uint8Array,
    out: Uint8Array,
    noAssert?: boolean
  ): Uint8Array
}
