// @ts-check
/** @import { Environment, Tools } from '../types.js' */
const express = require('express')

/**
 * @param {Environment} ev
 * @param {Tools} t
 */
module.exports = (ev, t) => {
  const router = express.Router()

  router.post('/api/v[123]/auth/login', (req, res, next) => {
    const { email, pass } = req.body
    const user = Object.hasOwn(ev.ACCESS_LIST, email) ? ev.ACCESS_LIST[email] : undefined
    t.misc.verify_password(String(pass), user, (valid) => {
      if (!valid || !user) return res.status(401).json({ error: 'invalid login' })
      // a new id, since another site may have set the old one
      req.session.regenerate((error) => {
        if (error) return next(error)
        req.session.couchdb_profile = { email, uuid: user.uuid }
        res.json({ message: 'ok' })
      })
    })
  })

  router.get('/api/v[123]/auth/logout', (req, res, next) => {
    req.session.destroy((error) => (error ? next(error) : res.json({ message: 'ok' })))
  })
  return router
}
