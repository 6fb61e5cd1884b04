"""Writes numbered items, objects and messages, one after the other in each thread, and prints what was acknowledged; or prints what is there."""
import sys, threading
import boto3
from botocore.config import Config

mode, url, key, secret = sys.argv[1:5]
conf = Config(retries={'max_attempts': 1}, max_pool_connections=16)
c = lambda name: boto3.client(name, endpoint_url=url, region_name='us-east-1', aws_access_key_id=key, aws_secret_access_key=secret, config=conf)
ddb, s3, sqs = c('dynamodb'), c('s3'), c('sqs')
lock = threading.Lock()


def body(n):  # some are kept in the database of objects, some in files
    return (n + ' ').encode() * (20 if n.endswith(('1', '3')) else 9000)


def say(*words):
    with lock:
        print(*words, flush=True)


def write(w, queue):
    for i in range(1_000_000):
        n = '%d-%d' % (w, i)
        try:
            ddb.put_item(TableName='orders', Item={'id': {'S': 't/' + n}, 'last': {'S': 'no'}})
            say('t', n)
            ddb.put_item(TableName='orders', Item={'id': {'S': 'last/%d' % w}, 'n': {'N': str(i)}})
            s3.put_object(Bucket='backup-files', Key='o/' + n, Body=body(n))
            say('o', n)
            if i > 3:
                s3.delete_object(Bucket='backup-files', Key='o/%d-%d' % (w, i - 4))
            sqs.send_message(QueueUrl=queue, MessageBody=n)
            say('q', n)
        except Exception as e:
            say('end', type(e).__name__)
            return


if mode == 'load':
    queue = sqs.get_queue_url(QueueName='backup-jobs')['QueueUrl']
    all = [threading.Thread(target=write, args=(w, queue)) for w in range(4)]
    for t in all:
        t.start()
    for t in all:
        t.join()
elif mode == 'items':
    for page in ddb.get_paginator('scan').paginate(TableName='orders', ConsistentRead=True):
        for item in page['Items']:
            say('item', item['id']['S'], item.get('n', {}).get('N', ''))
else:
    for page in s3.get_paginator('list_objects_v2').paginate(Bucket='backup-files'):
        for o in page.get('Contents', []):
            n = o['Key'][2:]
            assert s3.get_object(Bucket='backup-files', Key=o['Key'])['Body'].read() == body(n), n
            say('object', n)
