/**
 * Which keys each of their users has, and which users each key. What a user has had once stays his until he goes: a
 * Secret that is not asked for any more is to be looked at, too.
 */

export interface UserKeys {
  /** @shape (user, keys that he has now) -> all that he has, or has had */
  readonly note: (user: string, keys: Iterable<string>) => ReadonlySet<string>
  /** @shape (user) -> what he had */
  readonly forget: (user: string) => ReadonlySet<string>
  /** @shape (key) -> its users */
  readonly of: (key: string) => ReadonlySet<string>
  readonly hasUsers: (key: string) => boolean
}

const NOBODY: ReadonlySet<string> = new Set()

/** @shape () -> nobody has anything */
export const make = (): UserKeys => {
  const keysOf = new Map<string, Set<string>>()
  const usersOf = new Map<string, Set<string>>()
  return {
    note: (user, keys) => {
      const all = keysOf.get(user) ?? new Set()
      for (const key of keys) {
        all.add(key)
        const users = usersOf.get(key) ?? new Set()
        users.add(user)
        usersOf.set(key, users)
      }
      if (all.size > 0) keysOf.set(user, all)
      return all
    },
    forget: (user) => {
      const keys = keysOf.get(user) ?? NOBODY
      keysOf.delete(user)
      for (const key of keys) {
        const users = usersOf.get(key)
        users?.delete(user)
        if (users?.size === 0) usersOf.delete(key)
      }
      return keys
    },
    of: (key) => usersOf.get(key) ?? NOBODY,
    hasUsers: (key) => usersOf.has(key)
  }
}
