# Uses all of S3 that an application uses, as a client from outside of functions: s3.py URL ACCESS-KEY SECRET
import boto3, sys, io, json, hashlib, urllib.request
from botocore.config import Config
from botocore.exceptions import ClientError
url, key, secret = sys.argv[1:4]
def cl(**k): return boto3.client('s3', endpoint_url=url, region_name='us-east-1', aws_access_key_id=key, aws_secret_access_key=secret, config=Config(s3={'addressing_style': 'path'}, retries={'max_attempts': 0}), **k)
s = cl()
def fails(code, f, *a, **k):
    try: f(*a, **k)
    except ClientError as e:
        assert e.response['Error']['Code'] == code, (code, e.response)
        return e.response
    raise AssertionError('no ' + code)
s.create_bucket(Bucket='outside')
fails('BucketAlreadyOwnedByYou', cl().create_bucket, Bucket='outside', CreateBucketConfiguration={'LocationConstraint': 'eu-west-1'})
fails('NoSuchBucket', s.list_objects_v2, Bucket='nope-nope')
assert 'outside' in [b['Name'] for b in s.list_buckets()['Buckets']]
body = b'hello world'
r = s.put_object(Bucket='outside', Key='a/\u00fc b+c&d.txt', Body=body, ContentType='text/plain', Metadata={'k': 'v'}, CacheControl='max-age=1', Tagging='t=1&u=2')
assert r['ETag'] == '"%s"' % hashlib.md5(body).hexdigest(), r
g = s.get_object(Bucket='outside', Key='a/\u00fc b+c&d.txt')
assert g['Body'].read() == body and g['ContentType'] == 'text/plain' and g['Metadata'] == {'k': 'v'} and g['CacheControl'] == 'max-age=1', g
assert g['TagCount'] == 2, g
g = s.get_object(Bucket='outside', Key='a/\u00fc b+c&d.txt', Range='bytes=6-')
assert g['Body'].read() == b'world' and g['ContentRange'] == 'bytes 6-10/11' and g['ResponseMetadata']['HTTPStatusCode'] == 206
fails('InvalidRange', s.get_object, Bucket='outside', Key='a/\u00fc b+c&d.txt', Range='bytes=50-')
fails('NoSuchKey', s.get_object, Bucket='outside', Key='none')
assert fails('404', s.head_object, Bucket='outside', Key='none')
fails('304', s.get_object, Bucket='outside', Key='a/\u00fc b+c&d.txt', IfNoneMatch=r['ETag'])
fails('PreconditionFailed', s.get_object, Bucket='outside', Key='a/\u00fc b+c&d.txt', IfMatch='"0"')
fails('PreconditionFailed', s.put_object, Bucket='outside', Key='a/\u00fc b+c&d.txt', Body=b'x', IfNoneMatch='*')
for i in range(25): s.put_object(Bucket='outside', Key='l/%02d/x' % i, Body=b'%d' % i)
p = s.list_objects_v2(Bucket='outside', Prefix='l/', Delimiter='/', MaxKeys=10)
assert p['KeyCount'] == 10 and p['IsTruncated'] and len(p['CommonPrefixes']) == 10, p
q = s.list_objects_v2(Bucket='outside', Prefix='l/', Delimiter='/', ContinuationToken=p['NextContinuationToken'])
assert len(q['CommonPrefixes']) == 15 and not q['IsTruncated'], q
assert len(s.list_objects(Bucket='outside', Prefix='l/', Marker='l/20/x')['Contents']) == 4
assert len(list(s.get_paginator('list_objects_v2').paginate(Bucket='outside', PaginationConfig={'PageSize': 3}))) == 9
c = s.copy_object(Bucket='outside', Key='copy', CopySource={'Bucket': 'outside', 'Key': 'a/\u00fc b+c&d.txt'})
assert s.head_object(Bucket='outside', Key='copy')['Metadata'] == {'k': 'v'}
c = s.copy_object(Bucket='outside', Key='copy', CopySource='outside/copy', MetadataDirective='REPLACE', Metadata={'n': '1'})
assert s.head_object(Bucket='outside', Key='copy')['Metadata'] == {'n': '1'}
fails('InvalidRequest', s.copy_object, Bucket='outside', Key='copy', CopySource='outside/copy')
u = s.create_multipart_upload(Bucket='outside', Key='big', Metadata={'m': '1'})['UploadId']
data = bytes(range(256)) * (5 * 4096) + b'tail'
parts = [s.upload_part(Bucket='outside', Key='big', UploadId=u, PartNumber=n, Body=b)['ETag'] for n, b in ((1, data[:5 << 20]), (2, data[5 << 20:]))]
assert [x['PartNumber'] for x in s.list_parts(Bucket='outside', Key='big', UploadId=u)['Parts']] == [1, 2]
assert s.list_multipart_uploads(Bucket='outside')['Uploads'][0]['Key'] == 'big'
fails('InvalidPart', s.complete_multipart_upload, Bucket='outside', Key='big', UploadId=u, MultipartUpload={'Parts': [{'PartNumber': 1, 'ETag': '"0"'}]})
fails('NoSuchKey', s.get_object, Bucket='outside', Key='big')
r = s.complete_multipart_upload(Bucket='outside', Key='big', UploadId=u, MultipartUpload={'Parts': [{'PartNumber': i + 1, 'ETag': e} for i, e in enumerate(parts)]})
assert r['ETag'].endswith('-2"'), r
assert s.get_object(Bucket='outside', Key='big')['Body'].read() == data
fails('NoSuchUpload', s.list_parts, Bucket='outside', Key='big', UploadId=u)
s.upload_fileobj(io.BytesIO(data * 3), 'outside', 'managed')
out = io.BytesIO(); s.download_fileobj('outside', 'managed', out); assert out.getvalue() == data * 3
for alg in ('CRC32', 'CRC32C', 'SHA1', 'SHA256', 'CRC64NVME'):
    try: r = s.put_object(Bucket='outside', Key='sum', Body=body, ChecksumAlgorithm=alg)
    except Exception as e:
        if 'additional dependency' in str(e): continue
        raise
    assert r['Checksum' + alg], r
    assert s.head_object(Bucket='outside', Key='sum', ChecksumMode='ENABLED')['Checksum' + alg] == r['Checksum' + alg]
fails('BadDigest', s.put_object, Bucket='outside', Key='sum', Body=body, ChecksumSHA256='AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=')
s.put_bucket_versioning(Bucket='outside', VersioningConfiguration={'Status': 'Enabled'})
v1 = s.put_object(Bucket='outside', Key='v', Body=b'1')['VersionId']; v2 = s.put_object(Bucket='outside', Key='v', Body=b'2')['VersionId']
d = s.delete_object(Bucket='outside', Key='v'); assert d['DeleteMarker']
assert fails('NoSuchKey', s.get_object, Bucket='outside', Key='v')['ResponseMetadata']['HTTPHeaders']['x-amz-delete-marker'] == 'true'
assert s.get_object(Bucket='outside', Key='v', VersionId=v1)['Body'].read() == b'1'
vs = s.list_object_versions(Bucket='outside', Prefix='v'); assert len(vs['Versions']) == 2 and len(vs['DeleteMarkers']) == 1, vs
s.delete_object(Bucket='outside', Key='v', VersionId=d['VersionId']); assert s.get_object(Bucket='outside', Key='v')['Body'].read() == b'2'
s.put_object_tagging(Bucket='outside', Key='copy', Tagging={'TagSet': [{'Key': 'a', 'Value': 'b'}]})
assert s.get_object_tagging(Bucket='outside', Key='copy')['TagSet'] == [{'Key': 'a', 'Value': 'b'}]
s.put_bucket_cors(Bucket='outside', CORSConfiguration={'CORSRules': [{'AllowedMethods': ['GET'], 'AllowedOrigins': ['https://x.example'], 'AllowedHeaders': ['*']}]})
req = urllib.request.Request(url + '/outside/copy', method='OPTIONS', headers={'Origin': 'https://x.example', 'Access-Control-Request-Method': 'GET'})
assert urllib.request.urlopen(req).headers['Access-Control-Allow-Origin'] == 'https://x.example'
fails('NoSuchLifecycleConfiguration', s.get_bucket_lifecycle_configuration, Bucket='outside')
s.put_bucket_lifecycle_configuration(Bucket='outside', LifecycleConfiguration={'Rules': [{'ID': 'r', 'Status': 'Enabled', 'Filter': {'Prefix': 'tmp/'}, 'Expiration': {'Days': 1}}]})
assert s.get_bucket_lifecycle_configuration(Bucket='outside')['Rules'][0]['ID'] == 'r'
s.put_bucket_policy(Bucket='outside', Policy='{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::outside/secret/*"}]}'); s.get_bucket_policy(Bucket='outside')
assert s.get_bucket_location(Bucket='outside')['LocationConstraint'] is None
s.get_bucket_acl(Bucket='outside')
assert urllib.request.urlopen(s.generate_presigned_url('get_object', Params={'Bucket': 'outside', 'Key': 'copy'})).read() == body
req = urllib.request.Request(boto3.client('s3', endpoint_url=url, region_name='us-east-1', aws_access_key_id=key, aws_secret_access_key=secret, config=Config(signature_version='s3v4', s3={'addressing_style': 'path'})).generate_presigned_url('put_object', Params={'Bucket': 'outside', 'Key': 'pre'}), data=b'presigned', method='PUT')
assert urllib.request.urlopen(req).status == 200
post = s.generate_presigned_post('outside', 'posted/${filename}', Fields={'success_action_status': '201'}, Conditions=[{'success_action_status': '201'}, ['content-length-range', 1, 100], ['starts-with', '$key', 'posted/']])
b = b''.join(b'--B\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (k.encode(), v.encode()) for k, v in post['fields'].items()) + b'--B\r\nContent-Disposition: form-data; name="file"; filename="f.txt"\r\nContent-Type: text/plain\r\n\r\nposted!\r\n--B--\r\n'
assert urllib.request.urlopen(urllib.request.Request(post['url'], data=b, headers={'Content-Type': 'multipart/form-data; boundary=B'})).status == 201
assert s.get_object(Bucket='outside', Key='posted/f.txt')['Body'].read() == b'posted!'
a = s.get_object_attributes(Bucket='outside', Key='copy', ObjectAttributes=['ETag', 'ObjectSize']); assert a['ObjectSize'] == 11, a
fails('BucketNotEmpty', s.delete_bucket, Bucket='outside')
while True:
    vs = s.list_object_versions(Bucket='outside')
    keys = [{'Key': o['Key'], 'VersionId': o['VersionId']} for o in vs.get('Versions', []) + vs.get('DeleteMarkers', [])]
    if not keys: break
    r = s.delete_objects(Bucket='outside', Delete={'Objects': keys}); assert not r.get('Errors'), r
s.delete_bucket(Bucket='outside')
fails('404', s.head_bucket, Bucket='outside')
print('all of S3')
