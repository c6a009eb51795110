// @ts-check
/** @import { RequestHandler } from 'express' */
/** @import { Tools } from '../types.js' */
const express = require('express')

/** @param {Tools} t */
module.exports = (t) => {
  const router = express.Router()

  /** @type {RequestHandler<{ tx_id: string }>} */
  const get_webhook = (req, res) => {
    t.webhook.get_webhook(req.params.tx_id, (error, doc) => {
      if (error) return res.status(error.statusCode).json(error)
      res.json(doc)
    })
  }
  router.get('/api/v[123]/webhooks/txs/:tx_id', ...t.middleware.verify_view_action_session, get_webhook)
  router.get('/ak/api/v[123]/webhooks/txs/:tx_id', ...t.middleware.verify_view_action_ak, get_webhook)
  return router
}
