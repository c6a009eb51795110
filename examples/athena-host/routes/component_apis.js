// @ts-check
/** @import { RequestHandler } from 'express' */
/** @import { Environment, Tools } from '../types.js' */
const express = require('express')

/**
 * @param {Environment} ev
 * @param {Tools} t
 */
module.exports = (ev, t) => {
  const router = express.Router()

  /** @type {RequestHandler} */
  const import_component = (req, res) => {
    const { id, ...component } = req.body
    if (typeof id !== 'string' || !/^\w+$/.test(id)) {
      res.status(400).json({ statusCode: 400, msgs: ['id must be a word'] })
      return
    }
    t.couch_lib.writeDoc({ db_name: ev.DB_COMPONENTS }, { ...component, _id: id }, (error, _doc) => {
      if (error) return res.status(error.statusCode).json(error)
      t.component_lib.rebuildWhiteList(req, (error, _hosts) => {
        if (error) return res.status(error.statusCode).json(error)
        res.json({ message: 'ok', id })
      })
    })
  }
  router.post('/api/v[123]/components', ...t.middleware.verify_settings_action_session, import_component)
  router.post('/ak/api/v[123]/components', ...t.middleware.verify_settings_action_ak, import_component)
  return router
}
