// Drives gorsejs as an application would: node gorse.js <endpoint> <key>. Prints what it was answered as JSON.
const { Gorse, GorseException } = require('gorsejs')

async function main(endpoint, secret) {
  const client = new Gorse({ endpoint, secret })
  const item = { ItemId: 'js/1', IsHidden: true, Labels: ['a', 'b'], Categories: ['d', 'e'], Timestamp: '2022-08-07T00:26:46Z', Comment: 'c' }
  const found = { item }
  found.upserted = await client.upsertItem(item)
  found.popular = await client.getPopular({})
  found.latest = await client.getLatest({ category: '' })
  found.recommended = await client.getRecommend({ userId: 'u1', writeBackType: 'read', writeBackDelay: '10m', cursorOptions: { n: 3 } })
  found.neighbors = await client.getItemNeighbors({ itemId: 'i10', cursorOptions: { n: 3 } })
  const feedback = { FeedbackType: 'click', UserId: 'u1', ItemId: found.recommended[0], Timestamp: new Date().toISOString() }
  found.session = await client.getSessionRecommend([{ ...feedback, ItemId: 'i10' }])
  found.inserted = await client.insertFeedbacks([feedback])
  found.again = await client.upsertFeedbacks([feedback])
  found.user = await client.insertUser({ UserId: 'js', Labels: ['a'], Comment: 'c' }).then(() => client.getUser('js'))
  found.updated = await client.updateUser('js', { UserId: 'js', Comment: 'd' })
  found.users = await client.getUsers({ n: 5 })
  found.items = await client.upsertItems([{ ...item, ItemId: 'js2' }]).then(() => client.getItems({ n: 5 }))
  found.category = await client.insertItemCategory('js2', 'f')
  found.changed = await client.getItem('js2')
  found.deleted = await client.deleteItem('js2')
  found.errors = []
  for (const call of [() => client.getItem('js2'), () => client.getUserNeighbors({ userId: 'u1' }), () => client.deleteFeedback({ type: 'click', userId: 'u1', itemId: 'i1' })]) {
    try {
      await call()
    } catch (error) {
      found.errors.push({ code: error.code, known: error instanceof GorseException })
    }
  }
  console.log(JSON.stringify(found))
}

const [endpoint, key] = process.argv.slice(2)
main(endpoint, key).catch((error) => {
  console.error(error)
  process.exit(1)
})
