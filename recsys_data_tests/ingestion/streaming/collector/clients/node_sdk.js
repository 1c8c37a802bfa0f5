// Drives the Node SDK as an application would: node node_sdk.js <host> <write key> <calls> <retries>.
// Prints a JSON object: the id of each message, and how many events it stands for.
const { Analytics } = require('@segment/analytics-node')

const product = { product_id: 5, sku: 'G-32', price: 18.99, quantity: 1, name: 'Monopoly 🎩' }
const order = { order_id: 'o1', currency: 'USD', total: 27.5, products: [product, { ...product, product_id: 6 }] }
const list = { list_id: 'deals', products: [product, { product_id: '7' }, { product_id: '8' }] }
const calls = [
  ['track', { event: 'Product Viewed', properties: product }, 1],
  ['track', { event: 'Order Completed', properties: order }, 2],
  ['track', { event: 'Product List Viewed', properties: list }, 3],
  ['track', { event: 'Song Played', properties: { at: new Date() } }, 1],
  ['page', { name: 'Home', category: 'Docs', properties: { path: '/' } }, 1],
  ['screen', { name: 'Home' }, 1],
  ['identify', { traits: { plan: 'pro' } }, 1],
  ['alias', { previousId: 'before' }, 1],
  ['group', { groupId: 'g1', traits: { name: 'Initech' } }, 1],
]

async function main(host, writeKey, count, maxRetries) {
  const analytics = new Analytics({ host, writeKey, maxRetries, flushInterval: 500 })
  const expected = {}
  const failures = []
  for (let number = 0; number < count; number++) {
    const [call, message, events] = calls[number % calls.length]
    analytics[call]({ userId: `u${number}`, ...message }, (error, context) => {
      if (error) failures.push(error)
      expected[context.event.messageId] = events
    })
    // An application does not make all its calls at once.
    if (number % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  }
  await analytics.closeAndFlush()
  if (failures.length) throw new Error(`${failures.length} calls were not delivered: ${failures[0].message || failures[0].reason}`)
  console.log(JSON.stringify(expected))
}

const [host, writeKey, count, maxRetries] = process.argv.slice(2)
main(host, writeKey, Number(count), Number(maxRetries)).catch((error) => {
  console.error(error)
  process.exit(1)
})
