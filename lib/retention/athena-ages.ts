/** Ages in days of which athena means to keep a backup each. */
export const ATHENA_AGES = [0, 1, 2, 3, 4, 5, 6, 7, 10, 20, 30, 60, 90, 120] as const
